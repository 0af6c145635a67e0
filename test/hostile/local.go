//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/localipc"
	"peerlink/multiplex"
)

// local are attacks of other processes on the victim's machine, of this user and of
// another one.
var local = []attack{
	{name: "control connections that ask nothing", do: idleControl, then: commands},
	{name: "control connections with nonsense", do: wildControl, then: commands},
	{name: "half-open local sockets", do: idleLocal, then: visitedLocally},
	{name: "local links of throw-away keys", do: localLinks, then: visitedLocally, most: bounds{memory: 256 * mib}},
	{name: "another user at sockets and folders", do: otherUser, then: commands},
}

// controlSocket returns where the victim's daemon takes commands.
func (w *world) controlSocket() string {
	b, _ := os.ReadFile(filepath.Join(w.account("victim"), "control"))
	return strings.TrimSpace(string(b))
}

// deviceSocket returns where the victim takes devices of its machine.
func (w *world) deviceSocket() string {
	return filepath.Join(w.runFolder(), w.victim.String()[:32]+".sock")
}

func (w *world) runFolder() string { return filepath.Join(w.dir, "run", "peerlink") }

func idleControl(ctx context.Context, w *world, t *tally) {
	hold(ctx, 400, "unix", w.controlSocket(), t, nil)
}

// wildControl sends good and bad beginnings of requests.
func wildControl(ctx context.Context, w *world, t *tally) {
	r := w.random(3)
	hold(ctx, 400, "unix", w.controlSocket(), t, func() []byte {
		b := []byte("PLCT\x00\x00\x00\x04\x00\x00\x00\x0f{\"op\":\"changes\"")
		switch r.IntN(4) {
		case 0:
			return b[:r.IntN(len(b))]
		case 1:
			b[r.IntN(len(b))] = byte(r.Uint32())
		case 2:
			return append(b[:8], 0, 0xff, 0xff, 0xff)
		}
		return b
	})
}

// commands checks that the victim's own commands are answered.
func commands(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %v", deadline))
	defer cancel()
	if _, err := w.command(ctx, "victim", "", "status", "--json"); err != nil {
		t.harmed("a command of the victim is not answered: %v", err)
	}
}

func idleLocal(ctx context.Context, w *world, t *tally) {
	r := w.random(4)
	hold(ctx, 400, "unix", w.deviceSocket(), t, func() []byte {
		return [][]byte{nil, {1}, {1, 0x1c, 0}, {4, 0, 0}, append([]byte{1, 0x1b, 0xff}, make([]byte, 7<<10)...)}[r.IntN(5)]
	})
}

// localLinks makes links over the Unix socket, of ever new keys, and keeps them.
func localLinks(ctx context.Context, w *world, t *tally) {
	held, drop := context.WithCancel(ctx)
	defer drop()
	w.crowd(ctx, 4, func(ctx context.Context, _ *rand.Rand) error {
		id, err := stranger()
		for range 8 {
			if err == nil {
				_, err = w.localLink(held, id)
				t.tried.Add(1)
			}
		}
		return err
	})
}

// localLink makes a link over the Unix socket; it is closed when ctx ends.
func (w *world) localLink(ctx context.Context, as *identity.Identity) (*multiplex.Socket, error) {
	d := &localipc.Dialer{Config: localipc.Config{Identity: as, Dir: w.runFolder()}}
	one, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	conn, _, err := d.Dial(one, w.victim)
	if err != nil {
		return nil, err
	}
	sock := multiplex.Client(conn, multiplex.Config{})
	if err := sock.Ready(one); err != nil {
		_ = sock.Close()
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = sock.Close() })
	return sock, nil
}

// visitedLocally checks that a contact on the same machine gets a message through, as
// often as a device tries.
func visitedLocally(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = w.visitLocally(ctx); err == nil {
			return
		}
		_ = pause.For(ctx, time.Second)
	}
	t.harmed("a contact on the same machine does not get through: %v", err)
}

func (w *world) visitLocally(ctx context.Context) error {
	sock, err := w.localLink(ctx, w.visitor)
	if err != nil {
		return err
	}
	ch, err := sock.Open(ctx, "message://1")
	if err != nil {
		return err
	}
	return say(peerlink.NewMessages(ch), "hello from next door")
}

// otherUser has a process of another user try what the victim's folders and sockets let
// it. It needs root to become one.
func otherUser(ctx context.Context, w *world, t *tally) {
	if os.Geteuid() != 0 {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Env = []string{intruderEnv + "=" + strings.Join([]string{w.controlSocket(), w.deviceSocket(), w.account("victim"), w.runFolder()}, ":")}
		cmd.Dir = "/"
		cmd.SysProcAttr = child()
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return
		}
		t.tried.Add(1)
		if len(out) > 0 || err != nil {
			t.harmed("another user: %s (%v)", strings.TrimSpace(string(out)), err)
			return
		}
		_ = rest(ctx)
	}
}

const (
	nobody = 65534
	// intruderEnv has the paths that a process of another user tries.
	intruderEnv = "HOSTILE_INTRUDER"
)

// intrude prints what another user's process can do that it should not.
func intrude(paths []string) {
	for _, path := range paths {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil { //nolint:noctx // there is a time-out
			fmt.Println("it connects to", path)
			_ = c.Close()
		}
		if all, err := os.ReadDir(path); err == nil {
			fmt.Println("it reads", path, len(all))
		}
		for _, name := range []string{"identity.pem", "trust", "contacts.json", "daemon.log", "history.db"} {
			if f, err := os.Open(filepath.Join(path, name)); err == nil {
				fmt.Println("it reads", f.Name())
				_ = f.Close()
			}
		}
		if f, err := os.Create(filepath.Join(path, "intruder")); err == nil {
			fmt.Println("it makes", f.Name())
			_ = f.Close()
		}
	}
}
