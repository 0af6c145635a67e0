// Package connectionmanager_test proves the behaviour of the connection
// manager through the public API alone, over every carrier that can carry it.
// The numbers in the names are those of the list of scenarios.
package connectionmanager_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/dht"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/localipc"
	"peerlink/shm"
	"peerlink/tlssock"
	"peerlink/webrtc"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Of libp2p's own, without a way to end them: its process-wide clock of
		// flow metrics.
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).runActive"),
	)
}

// patience is how long anything may take before a test fails.
const patience = time.Minute

var background = context.Background()

// device is one device of a world.
type device struct {
	*peerlink.ConnectionManager
	id     *identity.Identity
	trust  func(identity.Subject, identity.Decision) error
	revoke func(*identity.RevocationList) error // takes a list
}

// world makes devices that can reach each other over one carrier.
type world interface {
	device(t *testing.T, name string, change func(*peerlink.Config)) *device
}

// carriers are the worlds; a test of the table runs in each.
var carriers = []struct {
	name string
	make func(t *testing.T) world
}{
	{"tcp", func(*testing.T) world { return &tcpWorld{addrs: map[identity.DeviceID]string{}} }},
	{"shm", func(t *testing.T) world { return newLocalWorld(t, "shm") }},
	{"unix", func(t *testing.T) world { return newLocalWorld(t, "unix") }},
	{"ice-tcp", func(*testing.T) world { return &iceWorld{engine: "tcp", post: newPost()} }},
	{"ice-udp", func(*testing.T) world { return &iceWorld{engine: "udp", post: newPost()} }},
	{"webrtc", func(*testing.T) world { return &webrtcWorld{post: newPost()} }},
	{"account", newAccountWorld},
}

// overCarriers runs a test in each world.
func overCarriers(t *testing.T, test func(t *testing.T, w world)) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test(t, c.make(t))
		})
	}
}

func newIdentity(t *testing.T, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func identityBy(t *testing.T, by func(*testing.T, string) *identity.Identity, name string) *identity.Identity {
	if by == nil {
		by = newIdentity
	}
	return by(t, name)
}

// overStreams runs a test in each world whose streams it can put its hands on.
func overStreams(t *testing.T, test func(t *testing.T, w world)) {
	overCarriers(t, func(t *testing.T, w world) {
		if _, whole := w.(*accountWorld); whole {
			t.Skip("an account makes its dialers itself")
		}
		test(t, w)
	})
}

// wrapped has the streams that a device dials go through wrap.
func wrapped(wrap func(net.Conn) net.Conn) func(*peerlink.Config) {
	return func(c *peerlink.Config) {
		for i, d := range c.Dialers {
			c.Dialers[i] = wrapper{d, wrap}
		}
	}
}

type wrapper struct {
	peerlink.Dialer
	wrap func(net.Conn) net.Conn
}

func (w wrapper) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	c, p, err := w.Dialer.Dial(ctx, peer)
	if err != nil {
		return nil, p, err
	}
	return w.wrap(c), p, nil
}

func newManager(t *testing.T, cfg peerlink.Config, change func(*peerlink.Config)) *device {
	t.Helper()
	if change != nil {
		change(&cfg)
	}
	m, err := peerlink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{m, cfg.Identity, cfg.Trust.Set, cfg.Trust.AddRevocations}
}

// tcpWorld is direct TCP on loopback.
type tcpWorld struct {
	makeID func(t *testing.T, name string) *identity.Identity // nil: newIdentity
	mu     sync.Mutex
	addrs  map[identity.DeviceID]string
}

type bookDialer struct {
	tlssock.Dialer
	w *tcpWorld
}

// Dial looks the address up when it is wanted: devices come one after another.
func (d *bookDialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	d.w.mu.Lock()
	addr := d.w.addrs[peer]
	d.w.mu.Unlock()
	if addr == "" {
		return d.Dialer.Dial(ctx, peer)
	}
	return d.DialAddr(ctx, addr, peer)
}

func (w *tcpWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	id, trust := identityBy(t, w.makeID, name), new(identity.Trust)
	proof := tlssock.Config{Identity: id, Trust: trust}
	l, err := tlssock.Listen(background, proof, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.addrs[id.DeviceID()] = l.Addrs()[0].String()
	w.mu.Unlock()
	d := &bookDialer{tlssock.Dialer{Config: proof}, w}
	return newManager(t, peerlink.Config{Identity: id, Trust: trust, Dialers: []peerlink.Dialer{d}, Listeners: []peerlink.Listener{l}}, change)
}

// localWorld is one machine's carriers, one of them at a time.
type localWorld struct{ carrier, dir string }

func newLocalWorld(t *testing.T, carrier string) world {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skipf("NOT TESTED: %s on %s", carrier, runtime.GOOS)
	}
	dir, err := os.MkdirTemp("", "run") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &localWorld{carrier, dir}
}

func (w *localWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	id, trust := newIdentity(t, name), new(identity.Trust)
	proof := localipc.Config{Identity: id, Trust: trust, Dir: w.dir, Services: []string{shm.Service}}
	local, err := localipc.Listen(background, proof)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	cfg := peerlink.Config{Identity: id, Trust: trust}
	unix := &localipc.Dialer{Config: proof}
	if w.carrier == "unix" {
		cfg.Dialers, cfg.Listeners = []peerlink.Dialer{unix}, []peerlink.Listener{local}
		return newManager(t, cfg, change)
	}
	mem, err := shm.Listen(shm.Config{RegionSize: 256 << 10}, local) // scenarios make many links
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	cfg.Dialers, cfg.Listeners = []peerlink.Dialer{&shm.Dialer{Local: unix, Config: shm.Config{RegionSize: 256 << 10}}}, []peerlink.Listener{mem}
	return newManager(t, cfg, change)
}

// post is signalling in memory: what the DHT does, without one.
type post struct {
	mu    sync.Mutex
	boxes map[identity.DeviceID]chan letter
	sent  []sending // all of it
}

// sending is a letter and to whom it went.
type sending struct {
	to identity.DeviceID
	letter
}

type letter struct {
	from identity.Peer
	msg  []byte
}

func newPost() *post { return &post{boxes: map[identity.DeviceID]chan letter{}} }

func (p *post) box(id identity.DeviceID) chan letter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boxes[id] == nil {
		p.boxes[id] = make(chan letter, 256)
	}
	return p.boxes[id]
}

// signaller is one device's access to the post.
type signaller struct {
	p  *post
	id *identity.Identity
}

func (s signaller) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	l := letter{s.id.Peer(), msg}
	s.p.mu.Lock()
	s.p.sent = append(s.p.sent, sending{to, l})
	s.p.mu.Unlock()
	select {
	case s.p.box(to) <- l:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s signaller) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case l := <-s.p.box(s.id.DeviceID()):
		return l.from, l.msg, nil
	case <-ctx.Done():
		return identity.Peer{}, nil, context.Cause(ctx)
	}
}

// iceWorld is ICE over one engine.
type iceWorld struct {
	engine string
	post   *post
	makeID func(t *testing.T, name string) *identity.Identity // nil: newIdentity
	adjust func(*ice.Config)                                  // nil: as it is
}

func (w *iceWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	id, trust := identityBy(t, w.makeID, name), new(identity.Trust)
	cfg := ice.Config{Identity: id, Trust: trust, Signaller: signaller{w.post, id}, Engines: []string{w.engine}, Loopback: true}
	if w.adjust != nil {
		w.adjust(&cfg)
	}
	tr, err := ice.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return newManager(t, peerlink.Config{Identity: id, Trust: trust, Dialers: []peerlink.Dialer{tr}, Listeners: []peerlink.Listener{tr}}, change)
}

// webrtcWorld is data channels.
type webrtcWorld struct {
	post   *post
	adjust func(*webrtc.Config) // nil: as it is
}

func (w *webrtcWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	id, trust := newIdentity(t, name), new(identity.Trust)
	cfg := webrtc.Config{Identity: id, Trust: trust, Signaller: signaller{w.post, id}, Loopback: true}
	if w.adjust != nil {
		w.adjust(&cfg)
	}
	tr, err := webrtc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return newManager(t, peerlink.Config{Identity: id, Trust: trust, Dialers: []peerlink.Dialer{tr}, Listeners: []peerlink.Listener{tr}}, change)
}

// accountWorld is everything: accounts that find each other through the DHT.
type accountWorld struct {
	dir  string
	node *dht.Node
}

func newAccountWorld(t *testing.T) world {
	node, err := dht.Start(background, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return &accountWorld{t.TempDir(), node}
}

func (w *accountWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	opts := account.Options{Name: name, Bootstrap: w.node.Addrs(), Loopback: true, LocalDir: "off"}
	if change != nil {
		change(&opts.Manager)
	}
	acc, err := account.Create(filepath.Join(w.dir, name), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := acc.Start(background); err != nil {
		t.Fatal(err)
	}
	if err := acc.Ready(background); err != nil {
		t.Fatal(err)
	}
	return ofAccount(acc)
}

func ofAccount(acc *account.Account) *device {
	return &device{acc.ConnectionManager(), acc.Identity(), acc.SetTrust, func(l *identity.RevocationList) error {
		text, err := l.MarshalText()
		if err == nil {
			_, err = acc.ImportRevocations(text)
		}
		return err
	}}
}

// connect opens a channel that must come about.
func connect(t *testing.T, from, to *device, uri string) *channel.Socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	s, err := from.ConnectDevice(ctx, to.id.DeviceID(), uri, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatalf("connect to %s: %v", uri, err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s
}

// accepting listens on a pattern and hands its channels over.
func (d *device) accepting(t *testing.T, pattern string) <-chan *channel.Socket {
	t.Helper()
	l, err := d.Listen(pattern)
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan *channel.Socket, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(c)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			c <- conn.(*channel.Socket)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return c
}

// echoing answers a pattern's channels with what they send.
func (d *device) echoing(t *testing.T, pattern string) {
	t.Helper()
	channels := d.accepting(t, pattern)
	go func() {
		for c := range channels {
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// exchange proves that bytes go to an echo and come back.
func exchange(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if _, err := fmt.Fprint(c, word); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(word))
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	if string(buf) != word {
		t.Fatalf("sent %q, got %q", word, buf)
	}
}

// eventually waits for a state that no event announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}
