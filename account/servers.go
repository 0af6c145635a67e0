package account

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
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
		host, name, err := nodeOf(addr)
		if ip, bad := netip.ParseAddr(host); err != nil || bad == nil && ip.IsLoopback() || seen[host] || len(out) == maxNodes {
			continue
		}
		key, err := dht.NodeKey(name)
		if err != nil {
			continue // a key of another type: there is none of ours
		}
		seen[host] = true
		at := net.JoinHostPort(host, relayPort)
		p := &pass{fetch: func(ctx context.Context) (relay.Pass, error) { return relay.Fetch(ctx, at, key, a.f.id) }}
		out = append(out, ice.Server{URL: "turn:" + at, Credentials: p.credentials})
	}
	return out
}

// nodeOf takes the host and the node's name out of a multiaddress.
func nodeOf(multiaddr string) (host, name string, err error) {
	parts := strings.Split(strings.TrimPrefix(multiaddr, "/"), "/")
	for i := 0; i+1 < len(parts); i += 2 {
		switch parts[i] {
		case "ip4", "ip6", "dns", "dns4", "dns6":
			host = parts[i+1]
		case "p2p":
			name = parts[i+1]
		}
	}
	if host == "" || name == "" {
		return "", "", fmt.Errorf("multiaddress %.80q has no host or no node", multiaddr)
	}
	return host, name, nil
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
