//go:build linux

package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// home is an account with a daemon, and its commands' client.
func home(t *testing.T, name, local string) (*account.Account, *control.Client) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	acc, err := account.Create(dir, account.Options{Name: name, LocalDir: local})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = acc.Close() })
	if err := acc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Account: acc})
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Bind(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Serve(l)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return acc, control.NewClient(dir)
}

// two are two accounts of this machine with their daemons.
func two(t *testing.T) (alice, bob *control.Client, bobs identity.DeviceID) {
	t.Helper()
	local := street(t)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(local))
	_, alice = home(t, "alice", local)
	acc, bob := home(t, "bob", local)
	return alice, bob, acc.Identity().DeviceID()
}

// through opens a channel from one command to another.
func through(t *testing.T, alice, bob *control.Client, bobs identity.DeviceID) (a, b *control.Conn) {
	t.Helper()
	l, err := bob.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a, err = alice.Connect(t.Context(), control.Connect{Device: bobs, URI: "test://x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return a, c.(*control.Conn)
}

func TestAChannelReachesACommandWhole(t *testing.T) {
	alice, bob, bobs := two(t)
	a, b := through(t, alice, bob, bobs)
	if p, ok := peerlink.PeerOf(a); !ok || p.Device != bobs || p.Name != "bob" || b.URI() != "test://x" {
		t.Errorf("the channel is with %v, under %q", p, b.URI())
	}
	if _, err := io.WriteString(a, "question"); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := io.WriteString(b, "answer"); err != nil { // the other direction goes on
		t.Fatal(err)
	}
	_ = b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestResetCodesReachCommands(t *testing.T) {
	alice, bob, bobs := two(t)
	a, b := through(t, alice, bob, bobs)
	if err := a.Reset(channel.CodeUser + 11); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadAll(b)
	var reset *channel.ResetError
	if !errors.As(err, &reset) || reset.Code != channel.CodeUser+11 || !reset.Remote {
		t.Errorf("%v", err)
	}
}

// A command that is killed closes its socket without a word.
// fault: G1
func TestKilledCommandResetsItsChannel(t *testing.T) {
	alice, bob, bobs := two(t)
	l, err := bob.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var raw net.Conn
	dir := folderOf(t, alice)
	killed := control.NewClientOf(func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", place(t, dir))
		raw = conn
		return conn, err
	})
	a, err := killed.Connect(t.Context(), control.Connect{Device: bobs, URI: "test://x"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(a, "half of"); err != nil {
		t.Fatal(err)
	}
	_ = raw.Close()
	got, err := io.ReadAll(c)
	var reset *channel.ResetError
	if string(got) != "half of" || !errors.As(err, &reset) || reset.Code != channel.CodeInternal {
		t.Errorf("%q, %v", got, err)
	}
}

func folderOf(t *testing.T, c *control.Client) string {
	t.Helper()
	st, err := control.OpStatus.Ask(t.Context(), c, control.None{})
	if err != nil {
		t.Fatal(err)
	}
	return st.Folder
}

func place(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestAClaimEndsWithItsCommand(t *testing.T) {
	alice, bob, bobs := two(t)
	l, err := bob.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Listen(t.Context(), "test://*"); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("a second claim: %v", err)
	}
	_ = l.Close()
	for { // the daemon hears of it in its own time
		if l, err = bob.Listen(t.Context(), "test://*"); err == nil {
			break
		}
	}
	_ = l.Close()
	for {
		_, err := alice.Connect(t.Context(), control.Connect{Device: bobs, URI: "test://x"})
		if errors.Is(err, peerlink.ErrDeclined) {
			break
		}
	}
}

// fault: H7
func TestStatusTellsNoSecrets(t *testing.T) {
	alice, bob, bobs := two(t)
	through(t, alice, bob, bobs)
	key, err := os.ReadFile(filepath.Join(folderOf(t, alice), "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := control.Op[control.None, map[string]any](control.OpStatus).Ask(t.Context(), alice, control.None{})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	flatten(&text, raw)
	if !strings.Contains(text.String(), bobs.String()) {
		t.Fatal("the status does not name the link's device")
	}
	for l := range strings.Lines(string(key)) {
		if l = strings.TrimSpace(l); len(l) > 20 && !strings.HasPrefix(l, "-") && strings.Contains(text.String(), l) {
			t.Errorf("the status has a line of the key file")
		}
	}
}

func flatten(b *strings.Builder, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			b.WriteString(k + " ")
			flatten(b, x)
		}
	case []any:
		for _, x := range v {
			flatten(b, x)
		}
	case string:
		b.WriteString(v + "\n")
	}
}
