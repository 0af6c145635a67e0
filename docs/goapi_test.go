// Package docs_test runs what the book shows.
package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/dht"
	"peerlink/identity"
	"peerlink/tlssock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openAccount, and each function down to the tests, is a piece of go-api.md,
// word for word.
func openAccount(ctx context.Context, dir, name string, nodes []string, prepare func(*peerlink.ConnectionManager) error) (*account.Account, error) {
	opts := account.Options{Name: name, Bootstrap: nodes, Loopback: true}
	acc, err := account.Open(dir, opts)
	if errors.Is(err, account.ErrNoAccount) {
		acc, err = account.Create(dir, opts) // a new key, in a folder that only you can read
	}
	if err != nil {
		return nil, err
	}
	if err = prepare(acc.ConnectionManager()); err == nil { // Listen and SetCallbacks
		err = acc.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, acc.Close())
	}
	return acc, nil
}

func echo(m *peerlink.ConnectionManager) error {
	l, err := m.Listen("echo://*")
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil // the manager was closed
		} else if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // until the caller's CloseWrite
		}()
	}
}

func ask(ctx context.Context, m *peerlink.ConnectionManager, device identity.DeviceID, question string) (string, error) {
	c, err := m.ConnectDevice(ctx, device, "echo://"+device.Short(), peerlink.ConnectOptions{})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, question); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil { // “that was all”; reading goes on
		return "", err
	}
	answer, err := io.ReadAll(c) // no error means that the device ended cleanly
	return string(answer), err
}

func whyNot(err error) []string {
	var connect *peerlink.ConnectError
	if !errors.As(err, &connect) {
		return nil
	}
	var why []string
	for _, a := range connect.Attempts {
		if a.Err != nil { // nil: it was still under way
			why = append(why, a.Carrier+": "+a.Err.Error())
		}
	}
	return why
}

func serveWeb(m *peerlink.ConnectionManager, srv *http.Server) error {
	l, err := m.Listen("http://*")
	if err != nil {
		return err
	}
	return srv.Serve(l)
}

func fetch(over http.RoundTripper, device identity.DeviceID) (string, error) {
	client := &http.Client{Transport: over} // Transport() or HTTP2Transport() of a manager
	resp, err := client.Get("http+peer://" + device.String() + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func exchange(c net.Conn, question []byte) ([]byte, error) {
	m := peerlink.NewMessages(c) // both ends use it
	m.Limit = 1 << 20            // so much a peer may have this side hold
	if err := m.Send(question); err != nil {
		return nil, err
	}
	return m.Receive()
}

func awaitLink(ctx context.Context, m *peerlink.ConnectionManager, device identity.DeviceID) (string, error) {
	for e := range m.Events(ctx) {
		if e.Kind == peerlink.LinkUp && e.Peer.Device == device {
			return e.Carrier, nil
		}
	}
	return "", ctx.Err()
}

func inMemory(ctx context.Context, id *identity.Identity, nodes []string) (*account.Account, error) {
	acc, err := account.New(account.Options{Identity: id, Bootstrap: nodes, Loopback: true})
	if err != nil {
		return nil, err
	}
	if err := acc.Start(ctx); err != nil {
		return nil, errors.Join(err, acc.Close())
	}
	return acc, nil
}

func onlyFriends(m *peerlink.ConnectionManager, friends map[identity.AccountID]bool) error {
	return m.SetCallbacks(peerlink.Callbacks{
		OnICERequest: func(_ context.Context, peer identity.Peer) error {
			if !friends[peer.Account] {
				return errors.New("friends only") // the caller reads it, and its error matches ErrRefused
			}
			return nil
		},
	})
}

func takeFiles(ctx context.Context, m *peerlink.ConnectionManager, took chan<- string) error {
	l, err := m.ListenChannels("file://*")
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		c, err := l.AcceptChannel(ctx) // a *channel.Socket
		if err != nil {
			return err // ctx has ended, or the manager was closed
		}
		go func() {
			defer c.Close()
			from, _ := peerlink.PeerOf(c)
			content, err := io.ReadAll(c)
			took <- fmt.Sprintf("%s sent %s: %q, %v", from.Name, c.URI(), content, err)
		}()
	}
}

func dialer(m *peerlink.ConnectionManager) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return m.DialContext(ctx, "peerlink", addr)
	}
}

func webOver(m *peerlink.ConnectionManager, carriers ...string) *http.Client {
	over := m.DialWith(peerlink.ConnectOptions{Carriers: carriers})
	return &http.Client{Transport: &http.Transport{DialContext: over}} // fetches http://DEVICEID/path
}

func advice(err error) string {
	var reset *channel.ResetError
	switch {
	case errors.Is(err, peerlink.ErrNoListener): // before ErrDeclined, which it matches, too
		return "no program there takes this URI now: try later"
	case errors.Is(err, peerlink.ErrDeclined):
		return "the program there said no"
	case errors.Is(err, peerlink.ErrRefused):
		return "the device does not let this one in"
	case errors.Is(err, identity.ErrNotTrusted):
		return "this device does not let that one in"
	case errors.Is(err, peerlink.ErrCapacity), errors.Is(err, peerlink.ErrBusy), errors.Is(err, peerlink.ErrWouldBlock):
		return "no room now: try later"
	case errors.As(err, &reset):
		return "the channel was cut: " + reset.Code.String()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "out of time"
	case errors.Is(err, net.ErrClosed): // so does peerlink.ErrClosed
		return "closed here"
	}
	return "the path failed: connect again"
}

type callerKey struct{}

func webServer() *http.Server {
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller, _ := r.Context().Value(callerKey{}).(identity.Peer)
			_, _ = fmt.Fprintf(w, "hello, %s at %.8s", caller.Name, r.RemoteAddr) // the id is proven, the name is what the device calls itself
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			caller, _ := peerlink.PeerOf(c)
			return context.WithValue(ctx, callerKey{}, caller)
		},
		Protocols: new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // the channel is encrypted
	return srv
}

func publish(subscribers map[*channel.Socket]*peerlink.Messages, news []byte) {
	for c, m := range subscribers {
		if err := m.TrySend(news); err != nil { // ErrWouldBlock: so far behind that nothing fits in
			_ = c.Reset(channel.CodeUser)
			delete(subscribers, c)
		}
	}
}

func untilItEnds(ctx context.Context, m *peerlink.ConnectionManager, id peerlink.LinkID) error {
	link, err := m.Link(id)
	if err != nil {
		return err // ErrNotConnected: it has ended already
	}
	select {
	case <-link.Done():
		return link.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func stop(ctx context.Context, acc *account.Account, srv *http.Server) error {
	return errors.Join(
		srv.Shutdown(ctx), // requests under way end, and connections that wait for another one
		acc.Shutdown(ctx), // nothing new begins; channels end, or are cut with ctx; then all is closed
	)
}

// network starts a node and returns what opens accounts there, and its addresses.
func network(t *testing.T, ctx context.Context) (open func(name string, prepare ...func(*peerlink.ConnectionManager) error) *account.Account, nodes []string) {
	t.Helper()
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // not among the user's own accounts
	return func(name string, prepare ...func(*peerlink.ConnectionManager) error) *account.Account {
		acc, err := openAccount(ctx, filepath.Join(dir, name), name, node.Addrs(), func(m *peerlink.ConnectionManager) error {
			for _, p := range prepare {
				if err := p(m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = acc.Close() })
		return acc
	}, node.Addrs()
}

func TestCodeOfTheBookWorks(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	open, _ := network(t, ctx)
	bob := open("bob")
	served := make(chan error, 3)
	go func() { served <- echo(bob.ConnectionManager()) }()
	srv := webServer()
	go func() { served <- serveWeb(bob.ConnectionManager(), srv) }()
	go func() { served <- answerMessages(bob.ConnectionManager()) }()
	if err := bob.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	alice, id := open("alice"), bob.Identity().DeviceID()
	m := alice.ConnectionManager()
	link := make(chan string, 1)
	go func() {
		carrier, _ := awaitLink(ctx, m, id)
		link <- carrier
	}()
	if got, err := ask(ctx, m, id, "is this thing on?"); err != nil || got != "is this thing on?" {
		t.Errorf("echo: %q, %v", got, err)
	}
	carrier := <-link
	if carrier == "" {
		t.Error("no link")
	}
	chosen := webOver(m, carrier)
	resp, err := chosen.Get("http://" + id.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	chosen.CloseIdleConnections()
	for _, over := range []http.RoundTripper{m.Transport(), m.HTTP2Transport()} {
		if got, err := fetch(over, id); err != nil || got != "hello, alice at "+alice.Identity().DeviceID().String()[:8] {
			t.Errorf("web: %q, %v", got, err)
		}
	}
	c, err := m.ConnectDevice(ctx, id, "words://x", peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exchange(c, []byte("ping")); err != nil || string(got) != "PING" {
		t.Errorf("messages: %q, %v", got, err)
	}
	_ = c.Close()
	lost := m.Connections()[0].ID
	if err := stop(ctx, bob, srv); err != nil {
		t.Error(err)
	}
	if err := untilItEnds(ctx, m, lost); err == nil || ctx.Err() != nil { // else the next call would ask on it
		t.Error(err)
	}
	for range 3 {
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) && err != http.ErrServerClosed {
			t.Error(err)
		}
	}
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	_, err = ask(short, m, id, "still there?")
	if why := whyNot(err); len(why) == 0 {
		t.Errorf("no reason in %v", err)
	}
}

func TestChannelsOfTheBookWork(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	open, nodes := network(t, ctx)
	bob := open("bob")
	took, end := make(chan string, 1), make(chan error, 1)
	go func() { end <- takeFiles(ctx, bob.ConnectionManager(), took) }()
	if err := bob.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	key, err := identity.Generate("carol")
	if err != nil {
		t.Fatal(err)
	}
	carol, err := inMemory(ctx, key, nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer carol.Close()
	m, id := carol.ConnectionManager(), bob.Identity().DeviceID()
	c, err := dialer(m)(ctx, "peer://"+id.String()+"/file://photo.jpg")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(c, "a picture")
	if err := errors.Join(err, c.Close()); err != nil {
		t.Error(err)
	}
	select {
	case got := <-took:
		if got != `carol sent file://photo.jpg: "a picture", <nil>` {
			t.Error(got)
		}
	case err := <-end:
		t.Fatal(err)
	}
	_, err = ask(ctx, m, id, "is this thing on?")
	if said := advice(err); !strings.HasPrefix(said, "no program there") {
		t.Errorf("%v: %s", err, said)
	}
	dave := open("dave", func(m *peerlink.ConnectionManager) error {
		return onlyFriends(m, map[identity.AccountID]bool{bob.Identity().AccountID(): true})
	})
	if err := dave.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = m.Dial(ctx, dave.Identity().DeviceID(), "chat://")
	if said := advice(err); !strings.Contains(said, "does not let this one in") || !strings.Contains(err.Error(), "friends only") {
		t.Errorf("%v: %s", err, said)
	}
	link, ends := m.Connections()[0].ID, make(chan error, 1)
	go func() { ends <- untilItEnds(ctx, m, link) }()
	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range []error{<-ends, <-end} {
		if err == nil || ctx.Err() != nil {
			t.Error(err)
		}
	}
}

func TestSlowSubscribersOfTheBookHoldNobodyUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	open, _ := network(t, ctx)
	alice, bob := open("alice"), open("bob")
	l, err := bob.ConnectionManager().ListenChannels("news://*")
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	subscribers, reading := map[*channel.Socket]*peerlink.Messages{}, map[string]*channel.Socket{}
	for _, name := range []string{"quick", "slow"} {
		c, err := alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "news://"+name, peerlink.ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		reading[name] = c
		s, err := l.AcceptChannel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		subscribers[s] = peerlink.NewMessages(s)
	}
	quick, news := peerlink.NewMessages(reading["quick"]), make([]byte, 10_000)
	_ = reading["quick"].SetReadDeadline(time.Now().Add(30 * time.Second))
	for i := 0; len(subscribers) == 2; i++ {
		publish(subscribers, news)
		if p, err := quick.Receive(); err != nil || len(p) != len(news) || i > 10_000 {
			t.Fatalf("news %d: %d bytes, %v", i, len(p), err)
		}
	}
	slow := peerlink.NewMessages(reading["slow"])
	for err == nil {
		_, err = slow.Receive()
	}
	if said := advice(err); said != "the channel was cut: code 256" {
		t.Errorf("%v: %s", err, said)
	}
}

// answerMessages answers each message in capitals.
func answerMessages(m *peerlink.ConnectionManager) error {
	l, err := m.Listen("words://*")
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		msgs := peerlink.NewMessages(c)
		p, err := msgs.Receive()
		if err == nil {
			err = msgs.Send(bytes.ToUpper(p))
		}
		if err != nil {
			return err
		}
	}
}

func withCarrier(ctx context.Context, dir string, opts account.Options) (*account.Account, error) {
	d := new(tlssock.Dialer) // or one of the program's own
	opts.Manager.Dialers = append(opts.Manager.Dialers, d)
	acc, err := account.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	d.Config = tlssock.Config{Identity: acc.Identity(), Trust: acc.Trust()}
	return acc, acc.Start(ctx)
}

func TestACarrierOfTheBookBelongsToItsAccount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	acc, err := account.Create(dir, account.Options{LocalDir: "off"})
	if err != nil || acc.Close() != nil {
		t.Fatal(err)
	}
	acc, err = withCarrier(t.Context(), dir, account.Options{LocalDir: "off"})
	if err != nil {
		t.Fatal(err)
	}
	if err := acc.Close(); err != nil {
		t.Error(err)
	}
}

var (
	goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")
	mdLink  = regexp.MustCompile(`\]\(([^)#: ]+)(#[^)]*)?\)`)
)

// pages are the book's own; adr/ is linked, not part of it.
func pages(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheBookShowsCodeThatRuns(t *testing.T) {
	source, shown := read(t, "goapi_test.go"), 0
	for _, page := range pages(t) {
		for _, b := range goBlock.FindAllStringSubmatch(read(t, page), -1) {
			shown++
			if !strings.Contains(source, strings.TrimSpace(b[1])+"\n") {
				t.Errorf("%s shows code that nothing here runs:\n%s", page, b[1])
			}
		}
	}
	if shown < 8 {
		t.Errorf("%d pieces of Go in the book", shown)
	}
}

func TestLinksOfTheBookLeadSomewhere(t *testing.T) {
	linked := []string{"README.md"}
	for _, page := range pages(t) {
		for _, l := range mdLink.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(l[1]); err != nil {
				t.Errorf("%s: %v", page, err)
			}
			if page == "README.md" {
				linked = append(linked, l[1])
			}
		}
	}
	for _, page := range pages(t) {
		if !slices.Contains(linked, page) {
			t.Errorf("README.md does not name %s", page)
		}
	}
}

// Each error text that troubleshooting.md explains stands in the program.
func TestTroubleshootingQuotesRealErrors(t *testing.T) {
	var source strings.Builder
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			source.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("(?m)^### “(.*)”$").FindAllStringSubmatch(read(t, "troubleshooting.md"), -1)
	if len(quoted) < 10 {
		t.Errorf("%d errors are explained", len(quoted))
	}
	for _, q := range quoted {
		for part := range strings.SplitSeq(q[1], "…") { // what differs from case to case
			if part = strings.TrimSpace(part); part != "" && !strings.Contains(source.String(), part) {
				t.Errorf("no source says %q", part)
			}
		}
	}
}
