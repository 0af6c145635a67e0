package ice

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls/callstest"
)

// exchange is a signaller within the process.
type exchange struct{ *callstest.Exchange }

func newExchange() *exchange { return &exchange{callstest.New()} }

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func onLoopback() ([]netip.Addr, error) {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

// device is a Transport with what a test wants to know of it.
type device struct {
	*Transport
	id  *identity.Identity
	box *callstest.Mailbox
}

// newDevice joins a device to the exchange; change may alter its Config.
func (x *exchange) newDevice(t testing.TB, name string, change ...func(*Config)) *device {
	t.Helper()
	d := &device{id: newIdentity(t, name)}
	d.box = x.Join(d.id)
	cfg := Config{Identity: d.id, Signaller: d.box, Loopback: true, Addresses: onLoopback}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if d.Transport, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// idle reports whether no call runs.
func (d *device) idle() bool {
	out, in := d.board.Running()
	return out+in == 0
}

// accepted reports whether a stream waits.
func (d *device) accepted() bool {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	conn, _, err := d.Accept(ctx)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func engines(names ...string) func(*Config) { return func(c *Config) { c.Engines = names } }

// limit bounds what a test waits for.
func limit(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// connect dials from a to b and returns both ends.
func connect(t testing.TB, a, b *device) (net.Conn, net.Conn) {
	t.Helper()
	ctx := limit(t, 20*time.Second)
	type result struct {
		conn net.Conn
		peer identity.Peer
		err  error
	}
	acceptc := make(chan result, 1)
	go func() {
		conn, peer, err := b.Accept(ctx)
		acceptc <- result{conn, peer, err}
	}()
	conn, peer, err := a.Dial(ctx, b.id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	r := <-acceptc
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { conn.Close(); r.conn.Close() })
	if peer.Device != b.id.DeviceID() || r.peer.Device != a.id.DeviceID() {
		t.Fatalf("dialled %s and got %s; accepted %s of %s", b.id.DeviceID().Short(), peer, r.peer, a.id.DeviceID().Short())
	}
	return conn, r.conn
}

var errTest = errors.New("no, thank you")

// rewrite returns an alter that replaces the candidates of a signal.
func rewrite(change func(m *message)) func(identity.DeviceID, []byte) ([]byte, error) {
	return func(_ identity.DeviceID, b []byte) ([]byte, error) {
		m, err := decode(b, true)
		if err != nil {
			return nil, err
		}
		change(m)
		return m.encode()
	}
}

// unreachable makes every candidate of a signal one where nobody listens: on
// loopback nothing has a port below 1024 in a test.
func unreachable(m *message) {
	dead := []candidate{{hostCandidate, netip.MustParseAddrPort("127.0.0.1:9")}}
	if m.tcp != nil {
		m.tcp.candidates = dead
	}
	if m.udp != nil {
		m.udp.candidates = dead
	}
}

// within has f tell how long something took, and again where that was too long: a
// busy machine adds to it, but not each time.
func within(t *testing.T, limit time.Duration, f func() time.Duration) {
	t.Helper()
	var took []time.Duration
	for range 5 {
		d := f()
		if d <= limit || t.Failed() {
			return
		}
		took = append(took, d)
	}
	t.Errorf("took %v, want at most %v", took, limit)
}
