package calls

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/calls/callstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// note is the fake carrier's signal: JSON.
type note struct {
	H    Head
	Body string
}

func (n *note) Head() Head { return n.H }

func (n *note) encode() []byte {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err)
	}
	return b
}

func decodeNote(b []byte) (*note, error) {
	n := new(note)
	return n, json.Unmarshal(b, n)
}

// fake is a carrier whose streams are pipes: the callee lays one end down, the
// caller takes it.
type fake struct {
	box  *callstest.Mailbox
	ends *sync.Map // by ID

	mu      sync.Mutex
	sides   []*side
	answers int
}

// side keeps what the peer has told since the offer or the answer.
type side struct{ told chan string }

func (s *side) More(n *note) bool {
	s.told <- n.Body
	return n.Body != "unwanted"
}

func (f *fake) newSide() *side {
	s := &side{make(chan string, 128)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides = append(f.sides, s)
	return s
}

// sent counts the answers that were sent.
func (f *fake) sent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answers
}

func (f *fake) Decode(b []byte) (*note, error) { return decodeNote(b) }
func (f *fake) Refusal(h Head) *note           { return &note{H: h} }

func (f *fake) Post(ctx context.Context, to identity.DeviceID, n *note) error {
	return f.box.Send(ctx, to, n.encode())
}

func (f *fake) Call(ctx context.Context, c *Call[*note]) (net.Conn, identity.Peer, error) {
	c.Attach(f.newSide())
	c.Offer(func(round int) (*note, bool) {
		return &note{Head{Kind: Offer, ID: c.ID}, fmt.Sprint(round)}, true
	}, func(context.Context) {})
	select {
	case n := <-c.Answers:
		c.Heard("an answer")
		if end, ok := f.ends.LoadAndDelete(c.ID); ok && n.Body == "" {
			return end.(net.Conn), identity.Peer{Device: c.Peer}, nil
		}
		<-ctx.Done()
		return nil, identity.Peer{}, c.Failure("the answer came, but no path was found", "tried hard", nil)
	case <-ctx.Done():
		return nil, identity.Peer{}, c.Failure("", "", nil)
	}
}

func (f *fake) Answer(ctx context.Context, v *Visit[*note], _ *note) (net.Conn, identity.Peer, error) {
	near, far := net.Pipe()
	f.ends.Store(v.ID, far)
	v.Attach(f.newSide())
	for {
		f.mu.Lock()
		f.answers++
		f.mu.Unlock()
		if err := f.Post(ctx, v.From.Device, &note{H: Head{Kind: Answer, ID: v.ID}}); err != nil {
			return nil, identity.Peer{}, err
		}
		for {
			select {
			case <-v.Again:
			case <-time.After(100 * time.Millisecond):
				if _, here := f.ends.Load(v.ID); here {
					continue
				}
				return near, v.From, nil
			case <-ctx.Done():
				return nil, identity.Peer{}, v.Failure("the caller did not come", "tried hard")
			}
			break
		}
	}
}

// device is a Board with what a test wants to know of it.
type device struct {
	*Board[*note]
	*fake
	id  *identity.Identity
	log *heard
}

// world is the devices of one test.
type world struct {
	*callstest.Exchange
	ends sync.Map
}

// inBubble runs a test in a time bubble.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &world{Exchange: callstest.New()}) })
}

func (w *world) device(t *testing.T, change ...func(*Config)) *device {
	t.Helper()
	id, err := identity.Generate("device")
	if err != nil {
		t.Fatal(err)
	}
	return w.deviceOf(t, id, change...)
}

func (w *world) deviceOf(t *testing.T, id *identity.Identity, change ...func(*Config)) *device {
	t.Helper()
	d := &device{id: id, log: &heard{}, fake: &fake{box: w.Join(id), ends: &w.ends}}
	cfg := Config{
		Name: "fake", Self: id.DeviceID(), Timeout: 30 * time.Second, Most: 16, Each: 4, Closed: fmt.Errorf("fake closed: %w", net.ErrClosed),
		Log: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	d.Board = New(cfg, d.fake)
	d.Listen(d.box)
	t.Cleanup(d.Close)
	return d
}

// pairInOrder is two devices, the smaller id first.
func (w *world) pairInOrder(t *testing.T, change ...func(*Config)) (small, large *device) {
	t.Helper()
	a, b := newIdentity(t), newIdentity(t)
	if !goesFirst(a.DeviceID(), b.DeviceID()) {
		a, b = b, a
	}
	return w.deviceOf(t, a, change...), w.deviceOf(t, b, change...)
}

func newIdentity(t *testing.T) *identity.Identity {
	t.Helper()
	id, err := identity.Generate("device")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// handle gives a signal to a device as if from had sent it.
func (d *device) handle(from identity.Peer, k Kind, id ID, body string) error {
	return d.Handle(from, (&note{Head{Kind: k, ID: id, Reason: body}, body}).encode())
}

// outcome is what an Accept or a Dial brought, and when.
type outcome struct {
	conn net.Conn
	peer identity.Peer
	err  error
	at   time.Time
}

func (d *device) dialLater(ctx context.Context, to *device) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, peer, err := d.Dial(ctx, to.id.DeviceID())
		c <- outcome{conn, peer, err, time.Now()}
	}()
	return c
}

func (d *device) acceptLater(ctx context.Context) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, peer, err := d.Accept(ctx)
		c <- outcome{conn, peer, err, time.Now()}
	}()
	return c
}

// connect dials, and closes both ends.
func connect(t *testing.T, a, b *device) {
	t.Helper()
	in := b.acceptLater(t.Context())
	conn, peer, err := a.Dial(t.Context(), b.id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	got := <-in
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.conn.Close()
	if peer.Device != b.id.DeviceID() || got.peer.Device != a.id.DeviceID() {
		t.Errorf("%s and %s have met", peer.Device.Short(), got.peer.Device.Short())
	}
}

// idle reports whether a device has no call and no place taken.
func (d *device) idle() bool {
	out, in := d.Running()
	members, strangers := d.places.Used()
	return out+in+members+strangers == 0
}

// refused returns the reason of an error that is a refusal.
func refused(err error) string {
	var r *RefusedError
	if errors.As(err, &r) {
		return r.Refused()
	}
	return ""
}

// heard keeps a log.
type heard struct {
	mu   sync.Mutex
	text []byte
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, b...)
	return len(b), nil
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.text)
}
