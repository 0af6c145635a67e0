//go:build linux

package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"peerlink"
	"peerlink/internal/runfolder"
)

// home makes an account's folder and a runtime folder of the test's own.
func home(t *testing.T) string {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	return t.TempDir()
}

// echo answers with what was asked.
func echo(_ context.Context, c *Call) error {
	var v map[string]string
	if err := c.Decode(&v); err != nil {
		return err
	}
	if v["fail"] != "" {
		return fmt.Errorf("it failed: %w", peerlink.ErrDeclined)
	}
	return c.Answer(v)
}

func serve(t *testing.T, folder string, handlers Handlers) *Server {
	t.Helper()
	l, err := Bind(folder)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, Config{Handlers: handlers})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestCallsAndTheirErrorsKeepTheirMeaning(t *testing.T) {
	folder := home(t)
	serve(t, folder, Handlers{"echo": echo})
	c := NewClient(folder)
	var got map[string]string
	if err := c.call(t.Context(), "echo", map[string]string{"a": "b"}, &got); err != nil || got["a"] != "b" {
		t.Fatalf("%v, %v", got, err)
	}
	if err := c.call(t.Context(), "echo", map[string]string{"fail": "now"}, nil); !errors.Is(err, peerlink.ErrDeclined) || err.Error() != "it failed: "+peerlink.ErrDeclined.Error() {
		t.Errorf("a declined channel became %v", err)
	}
	if err := c.call(t.Context(), "dance", nil, nil); err == nil || !strings.Contains(err.Error(), "restart it") {
		t.Errorf("what it cannot do: %v", err)
	}
	if pid, err := c.Daemon(t.Context()); err != nil || pid != os.Getpid() {
		t.Errorf("the daemon is process %d, %v", pid, err)
	}
	if _, err := NewClient(t.TempDir()).Daemon(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}

// fault: G5
func TestAnotherVersionSaysRestartTheDaemon(t *testing.T) {
	here, there := pair(t)
	go func() {
		_, _ = readGreeting(there)
		_, _ = there.Write(binary.BigEndian.AppendUint32([]byte(magic), Version+1))
	}()
	c := NewClientOf(func(context.Context) (net.Conn, error) { return here, nil })
	err := c.call(t.Context(), "echo", nil, nil)
	var version *VersionError
	if !errors.As(err, &version) || version.Theirs != Version+1 || version.PID != os.Getpid() || !strings.Contains(err.Error(), "restart the daemon") {
		t.Fatalf("%v", err)
	}

	folder := home(t)
	asked := false
	s := serve(t, folder, Handlers{"echo": func(context.Context, *Call) error { asked = true; return nil }})
	conn, err := dialDaemon(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	old := newWire(conn)
	_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte(magic), Version-1))
	_ = old.writeMessage(request{Op: "echo"})
	if v, err := readGreeting(conn); err != nil || v != Version {
		t.Fatalf("an old command is told version %d, %v", v, err)
	}
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("then the connection ends: %v", err)
	}
	_ = s.Close()
	if asked {
		t.Error("a request of another version was answered")
	}
}

// asUser runs f on a thread whose effective user is another one.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Error(errno)
			return
		}
		f()
	}()
	<-done
}

// raw does what net does, on this thread.
func raw(path string, listen bool) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if !listen {
		return fd, unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	return fd, errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 4))
}

// fault: G5
func TestAnotherUserIsNotServed(t *testing.T) {
	l, err := net.Listen("unix", "@peerlink-control-test-"+t.Name()) // no file whose mode would keep him out before
	if err != nil {
		t.Fatal(err)
	}
	served := false
	s := Serve(l, Config{Handlers: Handlers{"echo": func(context.Context, *Call) error { served = true; return nil }}})
	defer s.Close()
	asUser(t, 65534, func() {
		fd, err := raw(l.Addr().String(), false)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		_, _ = unix.Write(fd, append(greeting(), 0, 0, 0, 13))
		_, _ = unix.Write(fd, []byte(`{"op":"echo"}`))
		if n, err := unix.Read(fd, make([]byte, 64)); n > 0 {
			t.Errorf("it was told %d bytes, %v", n, err)
		}
	})
	_ = s.Close()
	if served {
		t.Error("a request of another user was answered")
	}
}

// fault: G5
func TestDaemonOfAnotherUserIsNotSpokenTo(t *testing.T) {
	folder := home(t)
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	asUser(t, 65534, func() {
		fd, err := raw(path, true)
		if err != nil {
			t.Error(err)
			return
		}
		f := os.NewFile(uintptr(fd), "listener")
		t.Cleanup(func() { _ = f.Close() })
	})
	if err := announce(folder, path); err != nil {
		t.Fatal(err)
	}
	err = NewClient(folder).call(t.Context(), "echo", nil, nil)
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "of user 65534") {
		t.Fatalf("%v", err)
	}
}

// fault: G5
func TestPassedDescriptorsAreNotReceived(t *testing.T) {
	folder := home(t)
	serve(t, folder, Handlers{"echo": echo})
	before := openFiles(t)
	conn, err := dialDaemon(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fds := make([]int, 200)
	for i := range fds {
		fds[i] = int(os.Stdin.Fd())
	}
	u := conn.(*net.UnixConn)
	for i, b := range greeting() { // a load with each byte
		if _, _, err := u.WriteMsgUnix([]byte{b}, unix.UnixRights(fds...), nil); err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	w := newWire(conn)
	if err := w.writeMessage(request{Op: "echo", Body: []byte(`{"a":"b"}`)}); err != nil {
		t.Fatal(err)
	}
	if v, err := readGreeting(w.br); err != nil || v != Version {
		t.Fatal(v, err)
	}
	var got map[string]string
	if err := readAnswer(w, &got); err != nil || got["a"] != "b" {
		t.Fatalf("%v, %v", got, err)
	}
	if after := openFiles(t); after > before+2 { // both ends
		t.Errorf("%d descriptors are open, %d were before the connection", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

// fault: A1
func TestRequestThatAnnouncesTooMuchEndsTheConnection(t *testing.T) {
	folder := home(t)
	serve(t, folder, Handlers{"echo": echo})
	for _, frame := range [][]byte{{0, 0xff, 0xff, 0xff}, {0, 0x10, 0, 1}, {1, 0, 0, 1}, {9, 0, 0, 0}, {0, 0, 0, 2, '{', ']'}} {
		conn, err := dialDaemon(t.Context(), folder)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(append(greeting(), frame...))
		rest, err := io.ReadAll(conn)
		if len(rest) > 8 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%x was answered by %q, %v", frame, rest, err)
		}
		_ = conn.Close()
	}
}

func TestSilentConnectionEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := Inside()
		s := Serve(l, Config{})
		here, err := c.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := io.ReadAll(here); err != nil || time.Since(began) != greetTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		_ = s.Close()
	})
}

// Requests take all the places that there are, and more of them wait. The daemon tells
// how it fares, and can be stopped, nevertheless; when the requests have ended there is
// room again.
//
// case: S12
func TestAFullDaemonCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := Inside()
		full := make(chan struct{})
		h := Handlers{"echo": echo, string(OpStatus): echo, string(OpStop): echo, "wait": func(ctx context.Context, c *Call) error {
			select {
			case <-full:
				return c.Answer(nil)
			case <-ctx.Done():
				return nil
			}
		}}
		s := Serve(l, Config{Handlers: h})
		ended := make(chan error, maxPlaces+maxWaiting)
		for range maxPlaces + maxWaiting {
			go func() { ended <- c.call(t.Context(), "wait", nil, nil) }()
		}
		synctest.Wait()
		if err := c.call(t.Context(), "echo", nil, nil); err == nil || err.Error() != errFull.Error() {
			t.Errorf("one more request: %v", err)
		}
		for range 2 * maxAsking { // and then some that never ask
			conn, err := c.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		synctest.Wait()
		began := time.Now()
		for range 100 {
			for _, op := range []string{string(OpStatus), string(OpStop)} {
				if err := c.call(t.Context(), op, nil, nil); err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
		}
		if took := time.Since(began); took > 2*patience { // for those that are silent
			t.Errorf("they had to wait for %v", took)
		}
		time.Sleep(takeTimeout) // of the bubble: for which requests wait
		for range maxWaiting {
			if err := <-ended; err == nil || err.Error() != errFull.Error() {
				t.Errorf("a request that has waited: %v", err)
			}
		}
		close(full)
		for range maxPlaces {
			if err := <-ended; err != nil {
				t.Errorf("a request that had a place: %v", err)
			}
		}
		if err := c.call(t.Context(), "echo", nil, nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		_ = s.Close()
		if n := len(s.asking) + len(s.conns) + len(s.ordinary.waits) + len(s.ordinary.places) + len(s.urgent.places); n > 0 {
			t.Errorf("%d places are left taken", n)
		}
	})
}

// fault: G1
func TestCallEndsWithItsCommand(t *testing.T) {
	folder := home(t)
	began, ended := make(chan struct{}), make(chan struct{})
	serve(t, folder, Handlers{"wait": func(ctx context.Context, _ *Call) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	called := make(chan error, 1)
	go func() { called <- NewClient(folder).call(ctx, "wait", nil, nil) }()
	select {
	case <-began:
	case err := <-called:
		t.Fatalf("the call ended before it was answered: %v", err)
	}
	cancel(why)
	if err := <-called; !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	<-ended
}

// fault: G2
func TestOnlyADeadDaemonsSocketIsRemoved(t *testing.T) {
	folder := home(t)
	l, err := Bind(folder)
	if err != nil {
		t.Fatal(err)
	}
	path := l.Addr().String()
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Fatalf("the folder: %v, %v", dir, err)
	}
	// It dies: the socket stays, and nobody answers there.
	_ = l.(*placed).UnixListener.Close()
	if _, err := NewClient(folder).Daemon(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Fatalf("a dead daemon: %v", err)
	}
	if l, err = Bind(folder); err != nil {
		t.Fatal(err)
	}
	// Somebody replaces the socket: it is not ours to remove.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"a file":   func() error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a link":   func() error { return os.Symlink("/dev/null", path) },
		"a folder": func() error { return os.Mkdir(path, 0o700) },
		"a pipe":   func() error { return unix.Mkfifo(path, 0o600) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s was removed when the listener closed", name)
		}
		if l2, err := Bind(folder); err == nil || !strings.Contains(err.Error(), "left alone") {
			t.Errorf("%s: %v, %v", name, l2, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// fault: G4
func TestFolderOfOthersIsRefused(t *testing.T) {
	folder := home(t)
	dir := runfolder.Default()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Bind(folder); err == nil || !strings.Contains(err.Error(), "chmod 0700 it") {
		t.Errorf("a folder that all can write: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(t.TempDir(), strings.Repeat("long", 25)))
	if err := os.MkdirAll(os.Getenv("XDG_RUNTIME_DIR"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Bind(folder); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a path that is too long: %v", err)
	}
	// What others could have written is not believed.
	if err := os.WriteFile(filepath.Join(folder, placeFile), []byte("/tmp/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(folder, placeFile), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(folder).Daemon(t.Context()); err == nil || !strings.Contains(err.Error(), "only this user") {
		t.Errorf("%v", err)
	}
}
