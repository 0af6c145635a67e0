//go:build linux || darwin

package localipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/runfolder"
)

// The steps at which another process is killed: a callee's and a caller's.
var (
	calleeSteps = []string{"folder", "lock", "bound", "half an announcement", "listening", "called", "greeting", "proving", "streaming"}
	callerSteps = []string{"connected", "hello", "proof", "ready", "stream"}
)

// runHelper is another process.
func runHelper(role string) error {
	cfg, err := helperConfig()
	if err != nil {
		return err
	}
	switch role {
	case "between":
		return standBetween(cfg)
	case "sink", "echo":
		return measured(cfg, role)
	case "connected", "hello", "proof", "ready", "stream":
		return callUntil(cfg, role)
	default:
		return serveUntil(cfg, role)
	}
}

// measured is the other end of a benchmark: it reads to the end, and says so, or
// sends back what comes.
func measured(cfg Config, role string) error {
	l, err := Listen(context.Background(), cfg)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("at " + role)
	c, _, err := l.Accept(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	p := make([]byte, 256<<10)
	for {
		n, err := c.Read(p)
		if err == io.EOF && role == "sink" {
			_, err = c.Write(p[:1])
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if role == "echo" {
			if _, err := c.Write(p[:n]); err != nil {
				return err
			}
		}
	}
}

// serveUntil goes through a callee's steps and stands at one of them.
func serveUntil(cfg Config, step string) error {
	ctx := context.Background()
	p := newPlace(cfg.Dir, cfg.Identity.DeviceID())
	if err := runfolder.Own(cfg.Dir); err != nil || step == "folder" {
		return errors.Join(err, stand(step))
	}
	switch step {
	case "lock", "bound", "half an announcement":
		l, err := waitLock(ctx, p.path(lockSuffix))
		if err != nil {
			return err
		}
		defer l.release()
		if step != "lock" {
			sock, err := net.Listen("unix", p.path(sockSuffix))
			if err != nil {
				return err
			}
			defer sock.Close()
		}
		if step == "half an announcement" {
			if err := os.WriteFile(p.path(newSuffix), []byte("half"), 0o600); err != nil {
				return err
			}
		}
		return stand(step)
	}
	door, err := openDoorway(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Println("at listening")
	if step == "listening" {
		return stand("")
	}
	conn, err := door.Accept()
	if err != nil {
		return err
	}
	x := &exchange{cfg: cfg, conn: conn}
	return answerUntil(x, step)
}

func answerUntil(x *exchange, step string) (err error) {
	if x.creds, err = peerCreds(x.conn); err != nil || step == "called" {
		return errors.Join(err, stand(step))
	}
	if step == "streaming" {
		p, err := x.answer()
		if err != nil {
			return err
		}
		if _, err := p.conn.Write(make([]byte, 1000)); err != nil {
			return err
		}
		return stand(step)
	}
	if x.hellos[0], err = receive(x.conn, kindHello); err != nil {
		return err
	}
	if _, err := x.greet(hello{device: x.cfg.Identity.DeviceID()}, 1, caller); err != nil || step == "greeting" {
		return errors.Join(err, stand(step))
	}
	if x.first, err = receive(x.conn, kindProof); err != nil {
		return err
	}
	b, err := x.prove(callee)
	if err != nil {
		return err
	}
	_, err = x.conn.Write(append([]byte{kindProof, byte(len(b) >> 8), byte(len(b))}, b[:len(b)/2]...)) // half of it
	return errors.Join(err, stand(step))
}

// callUntil goes through a caller's steps and stands at one of them.
func callUntil(cfg Config, step string) error {
	peer, err := identity.ParseDeviceID(os.Getenv(helperPeer))
	if err != nil {
		return err
	}
	ctx := context.Background()
	var conn net.Conn
	if path := os.Getenv(helperSocket); path != "" {
		conn, err = net.Dial("unix", path)
	} else {
		conn, _, err = cfg.find(ctx, peer, streamService)
	}
	if err != nil || step == "connected" {
		return errors.Join(err, stand(step))
	}
	x := &exchange{cfg: cfg, conn: conn}
	if x.creds, err = peerCreds(conn); err != nil {
		return err
	}
	if step == "stream" {
		if _, err := x.call(peer, streamService); err != nil {
			return err
		}
		if _, err := conn.Write(make([]byte, 1000)); err != nil {
			return err
		}
		return stand(step)
	}
	if _, err := x.greet(hello{service: streamService, device: peer}, 0, callee); err != nil || step == "hello" {
		return errors.Join(err, stand(step))
	}
	if x.first, err = x.prove(caller); err != nil {
		return err
	}
	if err := send(conn, kindProof, x.first); err != nil || step == "proof" {
		return errors.Join(err, stand(step))
	}
	if _, err := receive(conn, kindProof); err != nil { // all but the last word
		return err
	}
	return stand(step)
}

// Wherever a callee dies, its caller is told within a second, the next start
// of the device takes its place, and nothing is left behind.
//
// fault: G1, G2
func TestKilledCalleeIsNoticedAndReplaced(t *testing.T) {
	for _, step := range calleeSteps {
		t.Run(step, func(t *testing.T) {
			dir := folder(t)
			alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
			h := launchHelper(t, step, encodeID(t, bob), helperDir+"="+dir)
			line := h.line()
			d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
			failed := make(chan error, 1)
			if line == "at listening" && step != "listening" {
				go func() {
					conn, _, err := d.Dial(context.Background(), bob.DeviceID())
					if err == nil {
						defer conn.Close()
						var n int64
						if n, err = io.Copy(io.Discard, conn); n != 1000 {
							err = fmt.Errorf("%d bytes, then %w", n, err)
						} else if err == nil {
							err = io.EOF
						}
					}
					failed <- err
				}()
				line = h.line()
			} else {
				failed <- errors.New("nobody called")
			}
			if line != "at "+step && step != "listening" {
				t.Fatal(line)
			}
			h.kill()
			select {
			case err := <-failed:
				if err == nil {
					t.Error("the caller of a killed process saw no error")
				}
			case <-time.After(time.Second):
				t.Fatal("the caller of a killed process still waits after 1 s")
			}
			if _, _, err := d.Dial(context.Background(), bob.DeviceID()); !errors.Is(err, ErrNotHere) {
				t.Errorf("calling the dead: %v, want ErrNotHere", err)
			}
			l := listen(t, Config{Identity: bob, Dir: dir})
			link(t, l, d)
			l.Close()
			if got := entries(t, dir); len(got) != 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// Wherever a caller dies, the callee gives its place back and serves others.
//
// fault: G1
func TestKilledCallerCostsNothing(t *testing.T) {
	dir := folder(t)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	failed := make(failures, 1)
	l := listen(t, Config{Identity: bob, Dir: dir, Logger: slog.New(failed)})
	for _, step := range callerSteps {
		t.Run(step, func(t *testing.T) {
			accepted := make(chan error, 1)
			if step == "stream" {
				go func() {
					conn, _, err := l.Accept(context.Background())
					if err == nil {
						defer conn.Close()
						var n int64
						if n, err = io.Copy(io.Discard, conn); n != 1000 {
							err = fmt.Errorf("%d bytes, want 1000: %w", n, err)
						}
					}
					accepted <- err
				}()
			}
			h := startHelper(t, step, encodeID(t, alice), helperDir+"="+dir, helperPeer+"="+bob.DeviceID().String())
			h.kill()
			if step == "stream" {
				if err := <-accepted; err != nil {
					t.Error(err)
				}
			} else if err := failed.next(t); err == nil {
				t.Error("no error")
			}
			c, s := link(t, l, &Dialer{Config: Config{Identity: alice, Dir: dir}})
			c.Close()
			s.Close()
		})
	}
}

// standBetween serves another device's name with a socket of its own and passes
// every byte on to the device itself.
func standBetween(cfg Config) error {
	peer, err := identity.ParseDeviceID(os.Getenv(helperPeer))
	if err != nil {
		return err
	}
	path := newPlace(cfg.Dir, peer).path(sockSuffix)
	if err := os.Rename(path, path+".real"); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("at between")
	a, err := l.Accept()
	if err != nil {
		return err
	}
	b, err := net.Dial("unix", path+".real")
	if err != nil {
		return err
	}
	donec := make(chan error, 2)
	go func() { _, err := io.Copy(a, b); a.Close(); donec <- err }()
	go func() { _, err := io.Copy(b, a); b.Close(); donec <- err }()
	return errors.Join(<-donec, <-donec)
}

// A process between two honest devices that passes on their bytes is found out
// by the callee before it has said who it is.
//
// fault: G5
func TestProcessInBetweenIsFoundOut(t *testing.T) {
	dir := folder(t)
	alice, bob, eve := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "eve")
	failed := make(failures, 1)
	l := listen(t, Config{Identity: bob, Dir: dir, Logger: slog.New(failed)})
	startHelper(t, "between", encodeID(t, eve), helperDir+"="+dir, helperPeer+"="+bob.DeviceID().String())
	d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
	_, _, err := d.Dial(context.Background(), bob.DeviceID())
	if !errors.Is(err, ErrRefused) {
		t.Errorf("the caller: %v, want ErrRefused", err)
	}
	if err := failed.next(t); err == nil || !strings.Contains(err.Error(), "stands in between") {
		t.Errorf("the callee: %v, want that a process stands in between", err)
	}
	os.Remove(l.Path() + ".real")
}

// fault: G1
func TestCrashCyclesLeaveNothing(t *testing.T) {
	cycles := 1000
	if testing.Short() {
		cycles = 50
	}
	dir := folder(t)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	me, d := encodeID(t, bob), &Dialer{Config: Config{Identity: alice, Dir: dir}}
	before := descriptors(t)
	for i := range cycles {
		h := launchHelper(t, "streaming", me, helperDir+"="+dir)
		if line := h.line(); line != "at listening" {
			t.Fatal(line)
		}
		conn, _, err := d.Dial(context.Background(), bob.DeviceID())
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if line := h.line(); line != "at streaming" {
			t.Fatal(line)
		}
		h.kill()
		if n, err := io.Copy(io.Discard, conn); n != 1000 || err != nil {
			t.Fatalf("cycle %d: %d bytes, %v", i, n, err)
		}
		conn.Close()
		if n := len(entries(t, dir)); n > 3 {
			t.Fatalf("cycle %d: %d files in the folder", i, n)
		}
	}
	if n := descriptors(t); n > before+2*cycles/1000+1 {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	listen(t, Config{Identity: alice, Dir: dir}).Close()
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// descriptors counts this process's open files, or returns 0 where the system
// does not list them.
func descriptors(t testing.TB) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(es)
}
