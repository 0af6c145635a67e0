package webrtc

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what tests wait for that is to happen, on a machine however busy;
// what a closed stream has still to deliver has as long, too.
const patience = time.Minute

// exchange is a small real signaller: messages between devices of one process,
// in order, each delivered once.
type exchange struct {
	mu    sync.Mutex
	boxes map[identity.DeviceID]*mailbox
}

func newExchange() *exchange { return &exchange{boxes: make(map[identity.DeviceID]*mailbox)} }

type letter struct {
	from identity.Peer
	msg  []byte
}

// mailbox is one device's end of the exchange.
type mailbox struct {
	x     *exchange
	self  identity.Peer
	inc   chan letter
	alter func(to identity.DeviceID, msg []byte) ([]byte, error) // nil passes all
}

func (x *exchange) join(id *identity.Identity) *mailbox {
	m := &mailbox{x: x, self: id.Peer(), inc: make(chan letter, 1024)}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.boxes[id.DeviceID()] = m
	return m
}

func (m *mailbox) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	if m.alter != nil {
		var err error
		if msg, err = m.alter(to, msg); err != nil || msg == nil {
			return err
		}
	}
	return m.pass(ctx, to, msg)
}

func (m *mailbox) pass(ctx context.Context, to identity.DeviceID, msg []byte) error {
	m.x.mu.Lock()
	box := m.x.boxes[to]
	m.x.mu.Unlock()
	if box == nil {
		return fmt.Errorf("no mailbox of %s", to.Short())
	}
	select {
	case box.inc <- letter{m.self, msg}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *mailbox) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case l := <-m.inc:
		return l.from, l.msg, nil
	case <-ctx.Done():
		return identity.Peer{}, nil, ctx.Err()
	}
}

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
	box *mailbox
}

// newDevice joins a device to the exchange; change may alter its Config.
func (x *exchange) newDevice(t testing.TB, name string, change ...func(*Config)) *device {
	t.Helper()
	return x.deviceOf(t, newIdentity(t, name), change...)
}

func (x *exchange) deviceOf(t testing.TB, id *identity.Identity, change ...func(*Config)) *device {
	t.Helper()
	d := &device{id: id, box: x.join(id)}
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
