package account

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"peerlink/ice"
	"peerlink/internal/signalling"
	"peerlink/webrtc"
	"peerlink/webrtc/switchboard"
)

// Values of the setting "webrtc". Without one the carrier is there if there is
// a switchboard; "on" has its signals go through the DHT as well.
const (
	webrtcOn  = "on"
	webrtcOff = "off"
)

// iceKinds and webrtcKinds are those of docs/protocol.md.
var (
	iceKinds    = signalling.Kinds{From: 0, To: 15}
	webrtcKinds = signalling.Kinds{From: 16, To: 19}
)

const (
	// turnLife is that of credentials made from a shared secret: longer than any
	// call is being made.
	turnLife = 12 * time.Hour
	// maxWebRTCServers is as many as that carrier takes.
	maxWebRTCServers = 8
)

// checkWebRTC is for config.json.
func checkWebRTC(s string) error {
	if s != "" && s != webrtcOn && s != webrtcOff {
		return fmt.Errorf(`webrtc: %.80q: want "on" or "off"`, s)
	}
	return nil
}

// share divides the DHT's signals between ICE and WebRTC, where both use it.
func (a *Account) share(node signalling.Line) ice.Signaller {
	if a.opts.WebRTC != webrtcOn {
		return node
	}
	s := signalling.Split(node, a.f.trust, a.opts.Logger, iceKinds, webrtcKinds)
	a.closers = append(a.closers, s.Close)
	a.lines = append(a.lines, s.Branch(1))
	return s.Branch(0)
}

// startWebRTC has the carrier signal over the switchboards and, where share
// says so, the DHT. It does not wait for the switchboards. nil: there is to be
// no such carrier.
func (a *Account) startWebRTC() (*webrtc.Transport, error) {
	if err := checkWebRTC(a.opts.WebRTC); err != nil || a.opts.WebRTC == webrtcOff || a.opts.WebRTC == "" && len(a.opts.Switchboards) == 0 {
		return nil, err
	}
	var boards []signalling.Line
	for _, url := range a.opts.Switchboards {
		c, err := switchboard.New(url, switchboard.Config{Identity: a.f.id, Logger: a.opts.Logger})
		if err != nil {
			return nil, err
		}
		a.boards = append(a.boards, c)
		a.closers = append(a.closers, c.Close)
		boards = append(boards, c)
	}
	a.lines = append(boards, a.lines...) // a switchboard says at once who is not there
	if len(a.lines) == 0 {
		return nil, errors.New(`webrtc is "on", but there is nothing to signal over: neither a switchboard nor bootstrap nodes (config.json: switchboard, bootstrap)`)
	}
	servers, err := a.webrtcServers()
	if err != nil {
		return nil, err
	}
	j := signalling.Join(a.f.trust, a.opts.Logger, a.lines...)
	a.closers = append(a.closers, j.Close)
	t, err := webrtc.New(webrtc.Config{
		Identity: a.f.id, Trust: a.f.trust, Signaller: j, Servers: servers, Loopback: a.opts.Loopback, Logger: a.opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, t.Close)
	return t, nil
}

// webrtcServers are ICE's, as the other carrier takes them.
func (a *Account) webrtcServers() ([]webrtc.Server, error) {
	servers, err := a.servers()
	if err != nil {
		return nil, err
	}
	var out []webrtc.Server
	for _, s := range servers[:min(len(servers), maxWebRTCServers)] {
		w := webrtc.Server{URL: s.URL, Username: s.Username, Password: s.Password, Credentials: s.Credentials}
		if s.Secret != "" && s.Credentials == nil {
			w.Credentials = func(context.Context) (string, string, error) {
				user := strconv.FormatInt(time.Now().Add(turnLife).Unix(), 10)
				if s.Username != "" {
					user += ":" + s.Username
				}
				return user, ice.SharedPassword(s.Secret, user), nil
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// readyOnBoard waits until one of the switchboards knows this device.
func readyOnBoard(ctx context.Context, boards []*switchboard.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errc := make(chan error, len(boards))
	for _, b := range boards {
		go func() { errc <- b.Ready(ctx) }()
	}
	var errs []error
	for range boards {
		err := <-errc
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("account: no switchboard knows this device: %w", errors.Join(errs...))
}
