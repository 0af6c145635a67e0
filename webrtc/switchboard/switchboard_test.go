package switchboard

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/quota"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func limit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// serve runs a Server on loopback and returns its URL.
func serve(t testing.TB, cfg ServerConfig) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg)
	ctx, stop := context.WithCancel(context.Background())
	donec := make(chan error, 1)
	go func() { donec <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-donec; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, "ws://" + l.Addr().String() + "/"
}

func dial(t testing.TB, url string, id *identity.Identity) *Client {
	t.Helper()
	c, err := Dial(limit(t), url, Config{Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMessagesReachTheirDevice(t *testing.T) {
	_, url := serve(t, ServerConfig{})
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	a, b := dial(t, url, alice), dial(t, url, bob)
	ctx := limit(t)
	for _, c := range []struct {
		from, to *Client
		id, peer *identity.Identity
		msg      string
	}{{a, b, alice, bob, "hello"}, {b, a, bob, alice, strings.Repeat("x", MaxMessageLen)}} {
		if err := c.from.Send(ctx, c.peer.DeviceID(), []byte(c.msg)); err != nil {
			t.Fatal(err)
		}
		from, msg, err := c.to.Receive(ctx)
		if err != nil || from.Device != c.id.DeviceID() || string(msg) != c.msg {
			t.Errorf("received %d bytes of %v, %v", len(msg), from, err)
		}
	}
	if err := a.Send(ctx, bob.DeviceID(), make([]byte, MaxMessageLen+1)); err == nil {
		t.Error("a message past the bound is taken")
	}
	if err := a.Send(ctx, newIdentity(t, "nobody").DeviceID(), nil); err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("to an absent device: %v", err)
	}
}

// A line that breaks comes back by itself, and a newer line takes over.
func TestLineComesBack(t *testing.T) {
	s, url := serve(t, ServerConfig{})
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	a, b := dial(t, url, alice), dial(t, url, bob)
	ctx := limit(t)
	before := s.member(bob.DeviceID())
	before.end(errors.New("cut by the test"))
	for { // no news but these: Send fails while bob is away
		now := s.member(bob.DeviceID()) // what the older line was given last is lost with it
		if err := a.Send(ctx, bob.DeviceID(), []byte("again")); err == nil && now != nil && now != before {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("bob has not come back")
		}
	}
	if _, msg, err := b.Receive(ctx); err != nil || string(msg) != "again" {
		t.Errorf("received %q, %v", msg, err)
	}
	newer := dial(t, url, bob)
	for err := error(nil); err == nil; { // letters may still be waiting
		if _, _, err = b.Receive(ctx); err != nil && (!errors.Is(err, net.ErrClosed) || !errors.Is(err, errReplaced)) {
			t.Errorf("the older line ended with %v", err)
		}
	}
	if err := a.Send(ctx, bob.DeviceID(), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := newer.Receive(ctx); err != nil || string(msg) != "new" {
		t.Errorf("received %q, %v", msg, err)
	}
}

// raw speaks to a server by hand.
func raw(t *testing.T, url string) (*websocket.Conn, frame) {
	t.Helper()
	ws, _, err := websocket.Dial(limit(t), url, &websocket.DialOptions{Subprotocols: []string{Protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	f, err := read(limit(t), ws)
	if err != nil || f.op != opChallenge {
		t.Fatalf("%+v, %v", f, err)
	}
	return ws, f
}

// Who does not prove the key of his card does not join. fault: D2
func TestJoinWithoutTheKey(t *testing.T) {
	trust := &identity.Trust{}
	s, url := serve(t, ServerConfig{Trust: trust})
	alice, mallory, banned := newIdentity(t, "alice"), newIdentity(t, "mallory"), newIdentity(t, "banned")
	if err := trust.Set(banned.DeviceID(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	key, err := kem().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/")
	card := func(id *identity.Identity) []byte {
		b, err := encodeCard(id, key.PublicKey().Bytes(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	join := func(shown, signer *identity.Identity, nonce []byte, host string) frame {
		b := card(shown)
		c, err := decodeCard(b, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := signer.Sign(joinPurpose, joinStatement(nonce, c.sum, host))
		if err != nil {
			t.Fatal(err)
		}
		return frame{op: opJoin, body: b, extra: sig}
	}
	for name, say := range map[string]func(nonce []byte) frame{
		"another's card":    func(n []byte) frame { return join(alice, mallory, n, host) },
		"another challenge": func([]byte) frame { return join(alice, alice, make([]byte, nonceLen), host) },
		"another server":    func(n []byte) frame { return join(alice, alice, n, "board.example") },
		"a banned device":   func(n []byte) frame { return join(banned, banned, n, host) },
		"no join":           func([]byte) frame { return frame{op: opAsk, device: alice.DeviceID()} },
		"no card":           func([]byte) frame { return frame{op: opJoin, body: []byte{1}} },
	} {
		ws, f := raw(t, url)
		if err := write(limit(t), ws, say(f.body)); err != nil {
			t.Fatal(err)
		}
		if f, err := read(limit(t), ws); err == nil || websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for _, id := range []*identity.Identity{alice, mallory, banned} {
		if s.member(id.DeviceID()) != nil {
			t.Errorf("%v has joined", id.Peer())
		}
	}
}

// What a server makes up, repeats or turns to another device is dropped.
// faults: E1, E2
func TestLettersThatAreDropped(t *testing.T) {
	alice, bob, mallory := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "mallory")
	key, err := kem().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	to := func(id *identity.Identity) card { return card{peer: id.Peer(), key: key.PublicKey().Bytes()} }
	seal := func(from *identity.Identity, c card, at time.Time) []byte {
		b, err := sealLetter(from, c, [letterIDLen]byte{1}, at, []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := seal(alice, to(bob), now)
	if l, err := openLetter(bob.DeviceID(), key, good, now); err != nil || l.from.Device != alice.DeviceID() || string(l.body) != "hello" {
		t.Fatalf("%+v, %v", l, err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	// Alice's chain and statement under mallory's signature.
	forged, err := sign(mallory, letterPurpose, uint8(version), alice.Peer().Chain(), bytes.Clone(idBytes(bob)), make([]byte, letterIDLen), uint64(now.UnixMilli()), []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeLetter(bob.DeviceID(), forged, now); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("a forged sender: %v", err)
	}
	for name, b := range map[string][]byte{
		"changed":           flipped,
		"for another":       seal(alice, to(mallory), now),
		"too old":           seal(alice, to(bob), now.Add(-freshness-time.Second)),
		"from the future":   seal(alice, to(bob), now.Add(freshness+time.Second)),
		"too long":          make([]byte, maxSealed+1),
		"nothing":           nil,
		"only a key":        good[:keyLen],
		"not a letter":      []byte("hello"),
		"cut by one byte":   good[:len(good)-1],
		"with one too many": append(bytes.Clone(good), 0),
	} {
		if l, err := openLetter(bob.DeviceID(), key, b, now); err == nil {
			t.Errorf("%s: taken from %v", name, l.from)
		}
	}
	c := &Client{cfg: Config{Identity: bob}, key: key, inc: make(chan letter, 2), seen: quota.NewLRU[[letterIDLen]byte, struct{}](2)}
	c.cfg.Logger = discard
	c.deliver(good)
	c.deliver(good)
	if n := len(c.inc); n != 1 {
		t.Errorf("one letter was delivered %d times", n)
	}
}

func idBytes(id *identity.Identity) []byte { d := id.DeviceID(); return d[:] }

// Pages of other sites do not connect, unless their host is named.
func TestOriginIsChecked(t *testing.T) {
	_, url := serve(t, ServerConfig{Origins: []string{"app.example"}})
	for origin, want := range map[string]bool{"https://evil.example": false, "https://app.example": true, "": true} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		ws, resp, err := websocket.Dial(limit(t), url, &websocket.DialOptions{Subprotocols: []string{Protocol}, HTTPHeader: h})
		if err == nil {
			ws.CloseNow()
		}
		if (err == nil) != want {
			t.Errorf("origin %q: %v, %v", origin, resp, err)
		}
		if !want && (resp == nil || resp.StatusCode != http.StatusForbidden) {
			t.Errorf("origin %q: %v", origin, resp)
		}
	}
}

// A device that floods one that does not read is told so, and the server keeps
// a bounded queue.
func TestBoundsOfTheServer(t *testing.T) {
	s := NewServer(ServerConfig{MaxDevices: 3, MaxPerAddress: 2})
	a, b := quota.Host("192.0.2.1:1"), quota.Host("192.0.2.2:1")
	for i, c := range []struct {
		err, want error
	}{{s.lines.Take(a), nil}, {s.lines.Take(a), nil}, {s.lines.Take(a), quota.ErrKey}, {s.lines.Take(b), nil}, {s.lines.Take(b), quota.ErrAll}} {
		if c.err != c.want {
			t.Errorf("line %d: %v, want %v", i, c.err, c.want)
		}
	}
	s.lines.Release(b)
	m := seated(t, s, "bob", strangers)
	got := make(map[op]int)
	for range queueLen + 10 {
		got[s.pass(strangers, letterTo(m, 1))]++
	}
	if got[opTaken] != queueLen/2 || got[opBusy] != queueLen/2+10 {
		t.Errorf("%v", got)
	}
	if o := s.pass(strangers, frame{op: opSend, device: m.peer.Device, extra: make([]byte, 32)}); o != opStale {
		t.Errorf("to an older card: %d", o)
	}
}

// seated gives a device a line that nobody reads.
func seated(t testing.TB, s *Server, name string, of kind) *member {
	t.Helper()
	m := &member{peer: newIdentity(t, name).Peer(), kind: of, sum: cardSum{1}, outc: make(chan queued, queueLen), end: func(error) {}}
	m.at = quota.Host(fmt.Sprintf("10.0.%d.%d:1", s.seated>>8, s.seated&0xff))
	if err := s.seat(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func letterTo(m *member, bytes int) frame {
	return frame{op: opSend, device: m.peer.Device, extra: m.sum[:], body: make([]byte, bytes)}
}

// case: S17
func TestLinesThatDoNotReadShareABudget(t *testing.T) {
	s := NewServer(ServerConfig{})
	var slow []*member
	ended := 0
	for range 512 {
		m := seated(t, s, "slow", strangers)
		m.end = func(err error) {
			if errors.Is(err, errSlow) {
				ended++
			}
		}
		slow = append(slow, m)
	}
	alice := seated(t, s, "alice", strangers)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	flood := func() {
		for range queueLen {
			for _, m := range slow {
				s.pass(strangers, letterTo(m, maxSealed))
			}
		}
	}
	flood()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := int(after.HeapAlloc) - int(before.HeapAlloc); held > 2*boardBytes {
		t.Errorf("%d MiB are held for lines that do not read", held>>20)
	}
	if s.waiting[strangers] > boardBytes || s.waiting[strangers] < boardBytes-lineBytes {
		t.Errorf("%d bytes are counted", s.waiting[strangers])
	}
	if got := s.pass(strangers, letterTo(alice, maxSealed)); got != opTaken {
		t.Errorf("a letter to a line that reads: %d", got)
	}
	flood()
	if len(alice.outc) != 2 || s.member(alice.peer.Device) != alice { // joined, and the letter
		t.Errorf("%d messages wait for alice", len(alice.outc))
	}
	if ended == 0 {
		t.Error("no slow line has ended")
	}
	for _, m := range append(slow, alice) {
		s.unseat(m)
	}
	if s.waiting != [kinds]int{} || len(s.members) != 0 {
		t.Errorf("left: %v bytes, %d lines", s.waiting, len(s.members))
	}
}

// Strangers who fill the budget of their lines, and their half of a member's line,
// leave room for what members say to each other.
// case: S17
func TestLettersOfMembersHaveRoomOfTheirOwn(t *testing.T) {
	s := NewServer(ServerConfig{})
	s.waiting[strangers] = boardBytes
	contact := seated(t, s, "contact", members)
	for i := range lineBytes / 2 / maxSealed {
		if got := s.pass(strangers, letterTo(contact, maxSealed)); got != opTaken {
			t.Errorf("letter %d of a stranger to a member's line: %d", i, got)
		}
	}
	if got := s.pass(strangers, letterTo(contact, maxSealed)); got != opBusy {
		t.Errorf("strangers have all of a line: %d", got)
	}
	if got := s.pass(members, letterTo(contact, maxSealed)); got != opTaken {
		t.Errorf("a member's letter to a line that strangers fill: %d", got)
	}
}

// A letter for which there is no room is refused, and what was read is not counted.
// case: S17
func TestOnlyWhatWaitsIsCounted(t *testing.T) {
	s, url := serve(t, ServerConfig{})
	a, b := dial(t, url, newIdentity(t, "alice")), dial(t, url, newIdentity(t, "bob"))
	ctx, bob := limit(t), b.cfg.Identity.DeviceID()
	s.mu.Lock()
	s.waiting[strangers] = boardBytes - MaxMessageLen // as if for other lines
	s.mu.Unlock()
	if err := a.Send(ctx, bob, make([]byte, MaxMessageLen)); err == nil {
		t.Error("a letter that there is no room for was taken")
	}
	s.mu.Lock()
	s.waiting[strangers] = 0
	s.mu.Unlock()
	if err := a.Send(ctx, bob, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := b.Receive(ctx); err != nil || string(msg) != "hello" {
		t.Errorf("%q, %v", msg, err)
	}
	comesAbout(ctx, t, "nothing is counted", func() bool { // once the line's writer has said so
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting == [kinds]int{}
	})
}

// comesAbout waits for what other goroutines are about to do.
func comesAbout(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		if ctx.Err() != nil {
			t.Fatalf("it never came about: %s", what)
		}
		runtime.Gosched()
	}
}

// Lines of many keys from a few addresses fill the board: an address without any gets
// one all the same, and keeps it.
func TestALineOfTheAddressWithMostMakesRoom(t *testing.T) {
	s := NewServer(ServerConfig{MaxDevices: 100, MaxPerAddress: 50})
	line := func(addr string) (*member, error) {
		m := &member{peer: newIdentity(t, "throw-away").Peer(), at: quota.Host(addr + ":1"), outc: make(chan queued, queueLen)}
		m.end = func(err error) {
			if !errors.Is(err, errFull) {
				t.Errorf("a line ended: %v", err)
			}
		}
		return m, s.seat(m)
	}
	var all []*member
	flood := func() {
		for i := range 100 {
			if m, err := line(fmt.Sprint("192.0.2.", i%3)); err == nil {
				all = append(all, m)
			}
		}
	}
	flood()
	alice, err := line("198.51.100.1")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := line("198.51.100.2")
	if err != nil {
		t.Fatal(err)
	}
	flood()
	for _, m := range []*member{alice, bob} {
		if s.member(m.peer.Device) != m {
			t.Error("an honest line has ended")
		}
	}
	if n, _ := s.lines.Used(); n != 100 || len(s.members) != 100 {
		t.Errorf("%d places, %d lines", n, len(s.members))
	}
	for _, m := range append(all, alice, bob) {
		m.end = func(error) {}
		s.unseat(m)
	}
	lines, _ := s.lines.Used()
	joining, _ := s.joining.Used()
	if lines+joining+len(s.members) != 0 {
		t.Errorf("left: %d places, %d goodbyes, %d lines", lines, joining, len(s.members))
	}
}

// Members of the Trust have places of their own, and strangers cannot take them.
func TestMembersHaveLinesOfTheirOwn(t *testing.T) {
	trust := &identity.Trust{}
	s, url := serve(t, ServerConfig{Trust: trust, MaxDevices: 4, MaxPerAddress: 4})
	for i := range 4 {
		dial(t, url, newIdentity(t, fmt.Sprint("throw-away ", i)))
	}
	alice, eve := newIdentity(t, "alice"), newIdentity(t, "eve")
	if err := trust.Set(alice.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(limit(t), url, Config{Identity: eve}); err == nil || websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("one stranger more: %v", err)
	}
	a := dial(t, url, alice)
	if m := s.member(alice.DeviceID()); m == nil || m.kind != members {
		t.Fatalf("%+v", m)
	}
	a.Close()
	comesAbout(limit(t), t, "alice's place is given back", func() bool {
		own, _ := s.own.Used()
		return own == 0 && s.member(alice.DeviceID()) == nil
	})
}

// What one device sends past its rate waits; it is not lost. fault: E2
func TestRateIsHeld(t *testing.T) {
	_, url := serve(t, ServerConfig{Rate: 20})
	alice := newIdentity(t, "alice")
	a := dial(t, url, alice)
	began := time.Now()
	for range 50 { // 40 at once, then 10 in half a second
		if _, err := a.ask(limit(t), frame{op: opAsk, device: alice.DeviceID()}); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d < 300*time.Millisecond {
		t.Errorf("50 messages in %v", d)
	}
}

// With certificate files the line is TLS, and a certificate that the device
// does not know is refused.
func TestTLSByFiles(t *testing.T) {
	made := httptest.NewUnstartedServer(nil)
	made.StartTLS() // for its certificate
	defer made.Close()
	cert := made.TLS.Certificates[0]
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, keyFile, cert)
	ctx, stop := context.WithCancel(context.Background())
	l, err := Listen(ctx, "127.0.0.1:0", certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	donec := make(chan error, 1)
	go func() { donec <- NewServer(ServerConfig{}).Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-donec; err != nil {
			t.Error(err)
		}
	}()
	pool := x509.NewCertPool()
	pool.AddCert(made.Certificate())
	id := newIdentity(t, "alice")
	c, err := Dial(limit(t), "wss://"+addr+"/", Config{Identity: id, TLS: &tls.Config{RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := Dial(limit(t), "wss://"+addr+"/", Config{Identity: id}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	if err := NewServer(ServerConfig{}).ListenAndServe(ctx, "127.0.0.1:0", certFile, filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a key file: %v", err)
	}
}

// Certificates that are renewed are used, and broken files leave the one before.
func TestRenewedCertificatesAreUsed(t *testing.T) {
	dir := t.TempDir()
	k := &keyPair{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	renew := func(at time.Time) tls.Certificate {
		cert := newIdentity(t, "board").Certificate()
		writePEM(t, k.certFile, k.keyFile, cert)
		for _, f := range []string{k.certFile, k.keyFile} {
			if err := os.Chtimes(f, at, at); err != nil {
				t.Fatal(err)
			}
		}
		return cert
	}
	check := func(what string, want tls.Certificate) {
		t.Helper()
		got, err := k.get(nil)
		if err != nil || !bytes.Equal(got.Certificate[0], want.Certificate[0]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := k.get(nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without files: %v", err)
	}
	k.lookedAt = time.Time{}
	first := renew(time.Unix(1, 0))
	check("first", first)
	second := renew(time.Unix(2, 0))
	check("looked at just now", first)
	k.lookedAt = time.Time{}
	check("renewed", second)
	k.lookedAt = time.Time{}
	if err := os.WriteFile(k.certFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("broken", second)
	if k.lookedAt.IsZero() {
		t.Error("the broken files were not looked at")
	}
}

// A device that starts before its switchboard answers comes up with it.
func TestNewWaitsForTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New("ws://"+l.Addr().String()+"/", Config{Identity: newIdentity(t, "alice")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cut, err := l.Accept() // the first attempt
	if err != nil {
		t.Fatal(err)
	}
	cut.Close()
	for whole := limit(t); ; { // until it has failed
		ctx, cancel := context.WithTimeout(whole, 20*time.Millisecond)
		err := c.Ready(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || whole.Err() != nil {
			t.Fatalf("without a server: %v", err)
		}
		if !strings.Contains(err.Error(), "<nil>") {
			break
		}
	}
	sctx, stop := context.WithCancel(context.Background())
	donec := make(chan error, 1)
	go func() { donec <- NewServer(ServerConfig{}).Serve(sctx, l) }()
	defer func() {
		stop()
		if err := <-donec; err != nil {
			t.Error(err)
		}
	}()
	if err := c.Ready(limit(t)); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := c.Ready(limit(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDialTellsWhatIsWrong(t *testing.T) {
	id := newIdentity(t, "alice")
	for _, url := range []string{"", "http://127.0.0.1/", "127.0.0.1:1", "ws:///x", "wss://me@board.example/", "wss://board.example/#x"} {
		if _, err := Dial(limit(t), url, Config{Identity: id}); err == nil || !strings.Contains(err.Error(), "want wss://host:port/path") {
			t.Errorf("%q: %v", url, err)
		}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	url := "ws" + strings.TrimPrefix(plain.URL, "http")
	if _, err := Dial(limit(t), url, Config{Identity: id}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("at another server: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	b, err := frame{op: opSend, number: 7, device: identity.DeviceID{1}, body: []byte("x"), extra: make([]byte, 32)}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeFrame(b)
		if err != nil {
			return
		}
		again, err := in.encode()
		if err != nil {
			t.Fatal(err)
		}
		out, err := decodeFrame(again)
		if err != nil || out.op != in.op || out.number != in.number || out.device != in.device || !bytes.Equal(out.body, in.body) || !bytes.Equal(out.extra, in.extra) {
			t.Fatalf("%+v came back as %+v, %v", in, out, err)
		}
	})
}

func FuzzLetter(f *testing.F) {
	alice, err := identity.Generate("alice")
	if err != nil {
		f.Fatal(err)
	}
	me := alice.DeviceID()
	now := time.Now()
	b, err := sign(alice, letterPurpose, uint8(version), alice.Peer().Chain(), me[:], make([]byte, letterIDLen), uint64(now.UnixMilli()), []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	c, err := encodeCard(alice, make([]byte, keyLen), now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(c)
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLetter(me, b, now); err == nil && (len(l.body) > MaxMessageLen || l.from.Device.IsZero()) {
			t.Fatalf("a letter of %v with %d bytes", l.from, len(l.body))
		}
		if c, err := decodeCard(b, now); err == nil && (len(c.key) != keyLen || c.peer.Device.IsZero()) {
			t.Fatalf("a card of %v with a key of %d bytes", c.peer, len(c.key))
		}
	})
}
