package carriertest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a carrier over TCP that believes what callers say. The fields below its
// socket are faults.
type plain struct {
	id    *identity.Identity
	trust *identity.Trust
	site  *Site
	sock  *net.TCPListener

	name     string
	liar     bool                    // it proves another device
	trusting bool                    // all devices
	ended    error                   // of Accept after Close
	wrap     func(net.Conn) net.Conn // streams
}

// carrier makes plain carriers with a fault.
func carrier(fault func(*plain)) Carrier {
	return Carrier{Name: "plain", Make: func(ctx context.Context, site *Site, id *identity.Identity, trust *identity.Trust) (*Endpoint, error) {
		sock, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		p := &plain{id: id, trust: trust, site: site, sock: sock.(*net.TCPListener), name: "plain"}
		fault(p)
		return &Endpoint{Dialer: p, Listeners: []peerlink.Listener{p}}, site.Announce(id.DeviceID(), sock.Addr().String())
	}}
}

func (p *plain) Name() string { return p.name }

// greet exchanges device ids.
func (p *plain) greet(ctx context.Context, c net.Conn, want identity.DeviceID) (net.Conn, identity.Peer, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	own := p.id.DeviceID()
	var peer identity.Peer
	_, err := c.Write(own[:])
	if err == nil {
		_, err = io.ReadFull(c, peer.Device[:])
	}
	if err == nil && !want.IsZero() && peer.Device != want {
		err = errors.New("another device")
	}
	if err == nil && !p.trusting {
		err = p.trust.Check(peer)
	}
	if err != nil || !stop() {
		_ = c.Close()
		return nil, identity.Peer{}, cmp.Or(err, context.Cause(ctx))
	}
	if p.liar {
		peer.Device[0]++
	}
	if p.wrap != nil {
		c = p.wrap(c)
	}
	return c, peer, nil
}

func (p *plain) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", p.site.Address(peer))
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return p.greet(ctx, c, peer)
}

func (p *plain) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	for {
		stop := context.AfterFunc(ctx, func() { _ = p.sock.SetDeadline(time.Unix(1, 0)) })
		c, err := p.sock.Accept()
		if !stop() {
			_ = p.sock.SetDeadline(time.Time{})
			return nil, identity.Peer{}, context.Cause(ctx)
		}
		if err != nil && p.ended != nil {
			err = p.ended
		}
		if err != nil {
			return nil, identity.Peer{}, err
		}
		if c, peer, err := p.greet(ctx, c, identity.DeviceID{}); err == nil {
			return c, peer, nil
		}
	}
}

func (p *plain) Close() error { return p.sock.Close() }

// short is a stream that drops all but the first bytes.
type short struct {
	*net.TCPConn
	left int
}

func (s *short) Write(b []byte) (int, error) {
	n, err := s.TCPConn.Write(b[:min(len(b), s.left)])
	s.left -= n
	return len(b), err
}

// whole is a stream whose CloseWrite closes all of it.
type whole struct{ *net.TCPConn }

func (w whole) CloseWrite() error { return w.Close() }

// A carrier without a fault passes, and a rule finds the fault that it is about.
func TestEachRuleFindsItsFault(t *testing.T) {
	for rule, fault := range map[string]func(*plain){
		"names": func(p *plain) { p.name = "" },
		"Dial of a device that does not trust the caller": func(p *plain) { p.trusting = true; p.wrap = talk },
		"Dial of a device that the caller does not trust": func(p *plain) { p.trusting = true },
		"Accept after Close":                              func(p *plain) { p.ended = errors.New("over") },
		"stream, much at once both ways":                  func(p *plain) { p.liar = true },
		"stream, CloseWrite":                              func(p *plain) { p.wrap = func(c net.Conn) net.Conn { return whole{c.(*net.TCPConn)} } },
		"stream, Close":                                   func(p *plain) { p.wrap = func(c net.Conn) net.Conn { return &short{c.(*net.TCPConn), 1000} } },
	} {
		for _, k := range checks {
			if k.name != rule {
				continue
			}
			if err := k.pass(t.Context(), carrier(func(*plain) {})); err != nil {
				t.Errorf("%s, without a fault: %v", rule, err)
			}
			if k.pass(t.Context(), carrier(fault)) == nil {
				t.Errorf("%s: the fault was not found", rule)
			}
		}
	}
}

// talk writes before it is asked.
func talk(c net.Conn) net.Conn {
	_, _ = c.Write([]byte{1})
	return c
}

func TestGoroutinesAreFoundByTheirLabel(t *testing.T) {
	running, stop := make(chan struct{}), make(chan struct{})
	pprof.Do(t.Context(), pprof.Labels("carriertest", "of this test"), func(context.Context) {
		go func() {
			go func() {
				close(running)
				<-stop
			}()
		}()
	})
	defer close(stop)
	<-running
	if !strings.Contains(labelled("of this test"), "TestGoroutines") {
		t.Error("a goroutine of a goroutine was not found")
	}
	if left := labelled("of another test"); left != "" {
		t.Errorf("found without reason: %s", left)
	}
}

// What is right and what is wrong, whatever the way.
func TestVerdicts(t *testing.T) {
	cut := &channel.ResetError{Code: channel.CodeResource, Remote: true}
	closed := net.ErrClosed
	hang := &channel.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	clean, open, knows := way{clean: true}, way{}, way{clean: true, cuts: true}
	for _, c := range []struct {
		name  string
		way   way
		o     outcome
		wrong string
	}{
		{"all and the end", clean, outcome{9, 9, io.EOF, io.EOF, nil}, ""},
		{"all and a link's end", open, outcome{9, 9, cut, closed, nil}, ""},
		{"less, and all know", open, outcome{9, 5, cut, closed, cut}, ""},
		{"less, and the side that cut knows", knows, outcome{9, 5, cut, closed, nil}, ""},
		{"what the side that ends does not know", open, outcome{9, 9, cut, closed, hang}, ""},
		{"less and a clean end", knows, outcome{9, 5, io.EOF, cut, nil}, "clean end of fewer bytes"},
		{"less and silence", open, outcome{9, 5, cut, closed, nil}, "says nothing"},
		{"less and success", knows, outcome{9, 5, cut, io.EOF, nil}, "only success"},
		{"an end that was not made", open, outcome{9, 9, io.EOF, closed, nil}, "did not make"},
		{"a clean end that was lost", clean, outcome{9, 9, cut, nil, nil}, "clean end was lost"},
		{"a reader that waits", open, outcome{9, 9, hang, closed, nil}, "never told"},
		{"a writer that waits", clean, outcome{9, 9, io.EOF, hang, nil}, "never told"},
		{"other bytes", open, outcome{9, 9, errWrong, closed, nil}, "other bytes"},
	} {
		if got := c.way.fault(c.o); (got == "") != (c.wrong == "") || !strings.Contains(got, c.wrong) {
			t.Errorf("%s: %q, want %q", c.name, got, c.wrong)
		}
	}
}
