package localipc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
)

func TestServicesAreKeptApart(t *testing.T) {
	dir := folder(t)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir, Services: []string{"shm"}})
	d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	donec := make(chan error, 1)
	go func() {
		conn, peer, err := l.AcceptUnix(ctx, "shm")
		if err == nil {
			defer conn.Close()
			_, err = io.WriteString(conn, peer.Name)
		}
		donec <- err
	}()
	conn, peer, err := d.DialUnix(ctx, "shm", bob.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-donec; err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); string(b) != "alice" || err != nil || peer.Name != "bob" {
		t.Errorf("read %q, %v from %s", b, err, peer)
	}
	if _, _, err := d.DialUnix(ctx, "web", bob.DeviceID()); err == nil || !strings.Contains(err.Error(), "not offered") {
		t.Errorf("a service that is not offered: %v", err)
	}
	for _, bad := range []string{"", "stream", "SHM", strings.Repeat("x", 17)} {
		if _, _, err := d.DialUnix(ctx, bad, bob.DeviceID()); err == nil {
			t.Errorf("service %q was dialled", bad)
		}
		if _, err := Listen(ctx, Config{Identity: bob, Dir: dir, Services: []string{bad}}); err == nil {
			t.Errorf("service %q was listened for", bad)
		}
	}
	if _, _, err := l.AcceptUnix(ctx, "web"); err == nil {
		t.Error("a service that is not offered was accepted")
	}
}

func TestAcceptEndsWithContextAndClose(t *testing.T) {
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: folder(t)})
	ctx, cancel := context.WithCancel(context.Background())
	donec := make(chan error)
	go func() {
		_, _, err := l.Accept(ctx)
		donec <- err
	}()
	cancel()
	if err := <-donec; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	go func() {
		_, _, err := l.Accept(context.Background())
		donec <- err
	}()
	l.Close()
	if err := <-donec; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want net.ErrClosed", err)
	}
}

// Callers that connect and say nothing cost others nothing but the grace.
//
// fault: D7, J3
func TestStallingCallersLoseTheirPlaces(t *testing.T) {
	dir := folder(t)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	for range maxPending + 8 {
		conn, err := net.Dial("unix", l.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	start := time.Now()
	link(t, l, &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}})
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("an honest caller waited for %s", d)
	}
	l.Close()
	if s := l.in.Stats(); s.Shed == 0 || s.Proven != 1 {
		t.Errorf("%+v", s)
	}
}

// fault: G5
func TestOtherUsersAreRefusedUnread(t *testing.T) {
	if err := (creds{pid: 1, uid: selfUID() + 1}).allowed(); err == nil || !strings.Contains(err.Error(), "processes of one user") {
		t.Errorf("%v, want a refusal that says who may call", err)
	}
	if err := (creds{pid: 1, uid: selfUID()}).allowed(); err != nil {
		t.Errorf("a process of this user: %v", err)
	}
}

func TestFailuresAreCountedAndLogged(t *testing.T) {
	dir := folder(t)
	failed := make(failures, 1)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir, Logger: slog.New(failed)})
	conn, err := net.Dial("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := failed.next(t); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want io.ErrUnexpectedEOF", err)
	}
	l.Close()
	if s := l.in.Stats(); s.Failed != 1 || s.Proven != 0 {
		t.Errorf("%+v", s)
	}
}

func TestConfigIsChecked(t *testing.T) {
	ctx, bob := context.Background(), newIdentity(t, "bob")
	if _, err := Listen(ctx, Config{Dir: folder(t)}); err == nil {
		t.Error("listened without an identity")
	}
	if _, err := Listen(ctx, Config{Identity: bob, Services: make([]string, maxServices+1)}); err == nil {
		t.Error("too many services were taken")
	}
	d := &Dialer{}
	if _, _, err := d.Dial(ctx, bob.DeviceID()); err == nil {
		t.Error("dialled without an identity")
	}
	if _, err := d.Devices(); err == nil {
		t.Error("listed without an identity")
	}
	d.Config.Identity = bob
	if _, _, err := d.Dial(ctx, identity.DeviceID{}); err == nil {
		t.Error("nobody was dialled")
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/me")
	if dir := defaultDir(); dir != "" && dir != "/run/me/peerlink" {
		t.Errorf("default folder %q", dir)
	}
	os.Unsetenv("XDG_RUNTIME_DIR")
	if dir := defaultDir(); dir != "" && !strings.HasPrefix(dir, os.TempDir()) {
		t.Errorf("default folder %q", dir)
	}
}
