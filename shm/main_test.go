package shm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
)

// helperEnv makes this test binary act as another process, in the role that it
// names; pathEnv is the socket of the process that started it.
const helperEnv, pathEnv = "SHM_HELPER", "SHM_PATH"

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

// local stands in for localipc where who is at the other end does not matter:
// sockets without a proof.
type local struct {
	path string
	l    net.Listener
}

func newLocal(t testing.TB) *local {
	t.Helper()
	if err := supported(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "plk")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	return &local{path: path, l: l}
}

func (l *local) DialUnix(ctx context.Context, service string, id identity.DeviceID) (*net.UnixConn, identity.Peer, error) {
	if service != Service {
		return nil, identity.Peer{}, fmt.Errorf("service %q", service)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", l.path)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return conn.(*net.UnixConn), identity.Peer{Device: id}, nil
}

func (l *local) AcceptUnix(ctx context.Context, _ string) (*net.UnixConn, identity.Peer, error) {
	stop := context.AfterFunc(ctx, func() { l.l.(*net.UnixListener).SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := l.l.Accept()
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return conn.(*net.UnixConn), identity.Peer{Device: identity.DeviceID{2}}, nil
}

var someone = identity.DeviceID{1}

// link returns both ends of a stream within this process.
func link(t testing.TB, cfg Config) (caller, callee *Conn) {
	t.Helper()
	loc := newLocal(t)
	l, err := Listen(cfg, loc)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, s := linkOver(t, l, &Dialer{Local: loc, Config: cfg})
	return c, s
}

func linkOver(t testing.TB, l *Listener, d *Dialer) (caller, callee *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	donec := make(chan error, 1)
	go func() {
		conn, _, err := l.Accept(ctx)
		if err == nil {
			callee = conn.(*Conn)
		}
		donec <- err
	}()
	conn, _, err := d.Dial(ctx, someone)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-donec; err != nil {
		t.Fatal(err)
	}
	caller = conn.(*Conn)
	t.Cleanup(func() { caller.Close(); callee.Close() })
	return caller, callee
}

// helper is another process.
type helper struct {
	cmd *exec.Cmd
	out *bufio.Scanner
	in  io.WriteCloser
}

// startHelper runs this binary in a role.
func startHelper(t testing.TB, role, path string) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), helperEnv+"="+role, pathEnv+"="+path)
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
	h := &helper{cmd: cmd, out: bufio.NewScanner(out), in: in}
	t.Cleanup(func() { in.Close(); h.kill() })
	return h
}

// expect waits for the helper's next word.
func (h *helper) expect(t testing.TB, want string) {
	t.Helper()
	if !h.out.Scan() {
		t.Fatalf("the helper ended instead of %q: %v", want, h.out.Err())
	}
	if got := h.out.Text(); got != want {
		t.Fatalf("the helper says %q, want %q", got, want)
	}
}

// kill ends the helper with SIGKILL.
func (h *helper) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

// stand says where a helper is, and stays there.
func stand(where string) error {
	fmt.Println(where)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// mappings counts the regions that this process has mapped, and its open files,
// where the system tells.
func mappings() (regions, files int) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, 0
	}
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, 0
	}
	return strings.Count(string(maps), "memfd:peerlink"), len(es)
}

var errHelper = errors.New("no such role")
