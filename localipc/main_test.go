package localipc

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
)

// helperEnv makes this test binary act as another process: its value names the
// role; the others say where and who it is, whom it calls, and the socket to call
// at if it is not to look for one.
const (
	helperEnv    = "LOCALIPC_HELPER"
	helperDir    = "LOCALIPC_DIR"
	helperID     = "LOCALIPC_ID"
	helperPeer   = "LOCALIPC_PEER"
	helperSocket = "LOCALIPC_SOCKET"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(helperEnv); role != "" {
		if err := runHelper(role); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// helper is another process that has reached its step.
type helper struct {
	t   testing.TB
	cmd *exec.Cmd
	out *bufio.Scanner
}

// startHelper runs this binary in a role and returns when it has said where it
// stands.
func startHelper(t testing.TB, role string, env ...string) *helper {
	t.Helper()
	h := launchHelper(t, role, env...)
	if line := h.line(); line != "at "+role {
		t.Fatalf("helper %s: %s", role, line)
	}
	return h
}

func launchHelper(t testing.TB, role string, env ...string) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(append(os.Environ(), helperEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // a helper ends with its parent
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{t: t, cmd: cmd, out: bufio.NewScanner(out)}
	t.Cleanup(func() { in.Close(); h.kill() })
	return h
}

// line is the helper's next word.
func (h *helper) line() string {
	if !h.out.Scan() {
		return fmt.Sprintf("ended: %v", h.out.Err())
	}
	return h.out.Text()
}

// kill ends the helper with SIGKILL.
func (h *helper) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

// stand says that a helper has reached its step, and stays there.
func stand(role string) error {
	fmt.Println("at " + role)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func encodeID(t testing.TB, id *identity.Identity) string {
	t.Helper()
	b, err := id.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return helperID + "=" + base64.StdEncoding.EncodeToString(b)
}

func helperConfig() (Config, error) {
	b, err := base64.StdEncoding.DecodeString(os.Getenv(helperID))
	if err != nil {
		return Config{}, err
	}
	id, err := identity.Decode(b)
	if err != nil {
		return Config{}, err
	}
	return Config{Identity: id, Dir: os.Getenv(helperDir)}.withDefaults()
}

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// folder returns a runtime folder with a short path.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listen(t testing.TB, cfg Config) *Listener {
	t.Helper()
	l, err := Listen(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// link returns both ends of a stream between two devices.
func link(t testing.TB, l *Listener, d *Dialer) (caller, callee net.Conn) {
	t.Helper()
	type result struct {
		conn net.Conn
		peer identity.Peer
		err  error
	}
	c := make(chan result, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		conn, peer, err := l.Accept(ctx)
		c <- result{conn, peer, err}
	}()
	caller, peer, err := d.Dial(ctx, l.cfg.Identity.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	r := <-c
	if r.err != nil {
		t.Fatal(r.err)
	}
	if peer.Device != l.cfg.Identity.DeviceID() || r.peer.Device != d.Config.Identity.DeviceID() {
		t.Fatalf("proven: %s and %s", peer, r.peer)
	}
	t.Cleanup(func() { caller.Close(); r.conn.Close() })
	return caller, r.conn
}

// failures is a logger's handler that hands on the errors of failed handshakes.
type failures chan error

func (f failures) Enabled(context.Context, slog.Level) bool { return true }
func (f failures) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f failures) WithGroup(string) slog.Handler            { return f }

func (f failures) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			f <- err
		}
		return true
	})
	return nil
}

// next waits for the next failure of a listener.
func (f failures) next(t testing.TB) error {
	t.Helper()
	select {
	case err := <-f:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("no handshake failed within 10 s")
		return nil
	}
}

// entries are the names in a folder.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
