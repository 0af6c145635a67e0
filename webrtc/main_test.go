package webrtc

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/calls/callstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what tests wait for that is to happen, on a machine however busy;
// what a closed stream has still to deliver has as long, too.
const patience = time.Minute

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

// device is a Transport with what a test wants to know of it.
type device struct {
	*Transport
	id  *identity.Identity
	box *callstest.Mailbox
}

// newDevice joins a device to the exchange; change may alter its Config.
func (x *exchange) newDevice(t testing.TB, name string, change ...func(*Config)) *device {
	t.Helper()
	return x.deviceOf(t, newIdentity(t, name), change...)
}

func (x *exchange) deviceOf(t testing.TB, id *identity.Identity, change ...func(*Config)) *device {
	t.Helper()
	d := &device{id: id, box: x.Join(id)}
	cfg := Config{Identity: id, Signaller: d.box, Loopback: true}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if d.Transport, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	d.linger = patience
	t.Cleanup(func() { d.Close(); d.late.Wait() })
	return d
}

// limit bounds what a test waits for.
func limit(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// outcome is what an Accept or a Dial brought.
type outcome struct {
	conn net.Conn
	peer identity.Peer
	err  error
}

func (d *device) acceptLater(ctx context.Context) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, peer, err := d.Accept(ctx)
		c <- outcome{conn, peer, err}
	}()
	return c
}

func (d *device) dialLater(ctx context.Context, to *device) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, peer, err := d.Dial(ctx, to.id.DeviceID())
		c <- outcome{conn, peer, err}
	}()
	return c
}

// connect dials from a to b and returns both ends.
func connect(t testing.TB, a, b *device) (net.Conn, net.Conn) {
	t.Helper()
	ctx := limit(t, patience)
	acceptc := b.acceptLater(ctx)
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
