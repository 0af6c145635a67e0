package account_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
)

// A manager that a goroutine has got from an account stays one after another
// goroutine has closed the account.
//
// case: E7
func TestManagerOutlivesItsAccount(t *testing.T) {
	bob, err := account.New(account.Options{Listen: []string{"127.0.0.1:0"}})
	bob = direct(t, bob, err)
	acc, err := account.New(account.Options{})
	alice := direct(t, acc, err)
	if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
		t.Fatal(err)
	}
	if err := alice.Start(t.Context()); !errors.Is(err, peerlink.ErrStarted) {
		t.Errorf("started twice: %v", err)
	}
	echo(t, bob)
	began, ended := make(chan struct{}), make(chan error)
	go func() {
		for first := true; ; first = false {
			s, err := alice.ConnectionManager().ConnectDevice(t.Context(), bob.Identity().DeviceID(), "chat://", peerlink.ConnectOptions{})
			if first {
				close(began)
			}
			if err != nil {
				ended <- err
				return
			}
			_ = s.Close()
		}
	}()
	<-began
	if err := alice.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for name, call := range map[string]func() error{
		"ConnectDevice": func() error {
			_, err := alice.ConnectionManager().ConnectDevice(t.Context(), bob.Identity().DeviceID(), "chat://", peerlink.ConnectOptions{})
			return err
		},
		"Listen":       func() error { _, err := alice.ConnectionManager().Listen("x://"); return err },
		"Start":        func() error { return alice.Start(t.Context()) },
		"Ready":        func() error { return alice.Ready(t.Context()) },
		"SetPolicy":    func() error { return alice.SetPolicy(identity.AllowUndecided) },
		"Revoke":       func() error { _, err := alice.Revoke(bob.Identity().DeviceID()); return err },
		"FindInvite":   func() error { _, err := alice.FindInvite(t.Context(), 1); return err },
		"SignDevice":   func() error { _, _, err := alice.SignDevice(bob.Identity().Peer(), "x"); return err },
		"LearnDevices": func() error { _, err := alice.LearnDevices(nil); return err },
	} {
		if err := call(); !errors.Is(err, peerlink.ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

// A server is opened, listens, and only then starts, again and again, while a
// client redials: the client is never declined.
//
// case: E8
func TestServerListensBeforeItStarts(t *testing.T) {
	dir, id := t.TempDir(), (*identity.Identity)(nil)
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port for all of its lives
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	opts := account.Options{Listen: []string{addr}, LocalDir: "off"}
	acc, err := account.Create(filepath.Join(dir, "server"), opts)
	if err != nil {
		t.Fatal(err)
	}
	id = acc.Identity()
	if err := acc.Ready(t.Context()); !errors.Is(err, peerlink.ErrNotStarted) {
		t.Errorf("ready before Start: %v", err)
	}
	if err := acc.Close(); err != nil {
		t.Error(err)
	}
	acc, err = account.New(account.Options{})
	client := direct(t, acc, err)
	if err := client.Learn(id.DeviceID(), addr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var redials sync.WaitGroup
	redials.Go(func() {
		for ctx.Err() == nil {
			s, err := client.ConnectionManager().ConnectDevice(ctx, id.DeviceID(), "chat://", peerlink.ConnectOptions{})
			if errors.Is(err, peerlink.ErrDeclined) {
				t.Error(err)
			}
			if err == nil {
				_, _ = s.Write([]byte("hello"))
				_, _ = s.Read(make([]byte, 5))
				_ = s.Close()
			}
		}
	})
	for range 20 {
		server, err := account.Open(filepath.Join(dir, "server"), opts)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, server)
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		reached(t, client, id.DeviceID())
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	redials.Wait()
}

// reached waits until a device can be talked to.
func reached(t *testing.T, from *account.Account, to identity.DeviceID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := from.ConnectionManager().ConnectDevice(ctx, to, "chat://", peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _ = s.Write([]byte("hello"))
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// Any method at any time, from anywhere: nothing hangs, panics or is left behind.
//
// case: E7
// case: E8
func TestAccountsLifecycleInAnyOrder(t *testing.T) {
	bob, err := account.New(account.Options{Listen: []string{"127.0.0.1:0"}})
	bob = direct(t, bob, err)
	echo(t, bob)
	for range 20 {
		acc, err := account.New(account.Options{Listen: []string{"127.0.0.1:0"}, Switchboards: []string{"ws://127.0.0.1:1/"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		use := func(from, to *account.Account) {
			_ = from.Learn(to.Identity().DeviceID(), to.Addrs()...)
			s, err := from.ConnectionManager().ConnectDevice(ctx, to.Identity().DeviceID(), "chat://", peerlink.ConnectOptions{})
			if err == nil {
				_, _ = s.Write([]byte("hello"))
				_ = s.Close()
			}
		}
		ops := []func(){
			func() { _ = acc.Start(ctx) },
			func() { _ = acc.Start(ctx) },
			func() { use(acc, bob) },
			func() { use(bob, acc) },
			func() { _, _ = acc.ConnectionManager().Listen("chat://*") },
			func() { _ = acc.Ready(ctx) },
			func() { _ = acc.SetTrust(bob.Identity().DeviceID(), identity.Allowed) },
			func() { _, _ = acc.DHT() },
			func() { _ = acc.Shutdown(ctx) },
			func() { _ = acc.ConnectionManager().Close() },
			func() { _ = acc.Close() },
		}
		rand.Shuffle(len(ops), func(i, k int) { ops[i], ops[k] = ops[k], ops[i] })
		var all sync.WaitGroup
		for _, op := range ops {
			all.Go(op)
		}
		all.Wait()
		cancel()
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
	}
}
