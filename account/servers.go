package account

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"peerlink/dht"
	"peerlink/ice"
	"peerlink/internal/relay"
)

const (
	// noServers, alone in the list of servers, switches them off.
	noServers = "none"
	// relayPort is where a node takes STUN and TURN unless told otherwise.
	relayPort = "3478"
	// maxNodes is how many bootstrap nodes are asked: each has to be kept from
	// forgetting us.
	maxNodes = 3
)

// checkServer is for config.json.
func checkServer(s string) error {
	if s == noServers {
		return nil
	}
	return ice.CheckServerURL(s)
}

// servers are those of the settings, or else what runs beside the bootstrap
// nodes.
func (a *Account) servers() ([]ice.Server, error) {
	if len(a.opts.Servers) == 0 {
		return a.nodeServers(), nil
	}
	var out []ice.Server
	for _, s := range a.opts.Servers {
		if s == noServers {
			if len(a.opts.Servers) > 1 {
				return nil, errors.New("servers: \"none\" stands alone")
			}
			return nil, nil
		}
		out = append(out, ice.Server{URL: s, Username: a.opts.TURNUser, Password: a.opts.TURNPassword, Secret: a.opts.TURNSecret})
	}
	return out, nil
}

// nodeServers are the STUN and TURN servers of the bootstrap nodes. Nodes on
// loopback have nothing to tell.
func (a *Account) nodeServers() []ice.Server {
	var out []ice.Server
	seen := map[string]bool{}
	for _, addr := range a.opts.Bootstrap {
		host, key, err := dht.NodeAt(addr) // a key of another type is none of ours
		if ip, bad := netip.ParseAddr(host); err != nil || bad == nil && ip.IsLoopback() || seen[host] || len(out) == maxNodes {
			continue
		}
		seen[host] = true
		at := net.JoinHostPort(host, relayPort)
		p := &pass{fetch: func(ctx context.Context) (relay.Pass, error) { return relay.Fetch(ctx, at, key, a.f.id) }}
		out = append(out, ice.Server{URL: "turn:" + at, Credentials: p.credentials})
	}
	return out
}

// pass keeps a node's credentials until they are about to expire.
type pass struct {
	fetch func(context.Context) (relay.Pass, error)

	mu   sync.Mutex
	kept relay.Pass
	no   error     // why there are none
	till time.Time // how long that is believed
	got  time.Time // when they were fetched
	used time.Time // when they were given last
}

// passMargin is how long credentials must still be good for. againSoon is how
// soon asking again means that they did not work: a node that was restarted
// does not know them any more. But the ways to one server are tried within
// atOnce, with the same ones.
const (
	passMargin = time.Hour
	againSoon  = 30 * time.Second
	atOnce     = 2 * time.Second
	// A node that does not relay hardly begins to; one that does not answer may
	// come back.
	noRelayFor  = 10 * time.Minute
	noAnswerFor = 5 * time.Second
)

// credentials is for ice.Server.
func (p *pass) credentials(ctx context.Context) (username, password string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Before(p.till) {
		return "", "", p.no
	}
	if now.Add(passMargin).After(p.kept.Expires) || now.Sub(p.used) < againSoon && now.Sub(p.got) > atOnce {
		fresh, err := p.fetch(ctx)
		switch {
		case errors.Is(err, relay.ErrNoRelay):
			p.no, p.till = err, now.Add(noRelayFor)
		case err != nil && ctx.Err() == nil:
			p.no, p.till = err, now.Add(noAnswerFor)
		}
		if err != nil {
			return "", "", err
		}
		p.kept, p.got = fresh, time.Now()
	}
	p.used = now
	return p.kept.Username, p.kept.Password, nil
}
