package shm

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"peerlink/identity"
)

func TestAcceptEndsWithContextAndClose(t *testing.T) {
	loc := newLocal(t)
	l, err := Listen(Config{}, loc)
	if err != nil {
		t.Fatal(err)
	}
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
	l.Close()
}

func TestListenerEndsWithTheLocalOne(t *testing.T) {
	loc := newLocal(t)
	l, err := Listen(Config{}, loc)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	loc.l.Close()
	if _, _, err := l.Accept(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want net.ErrClosed", err)
	}
}

// failures hands on that something was logged.
type failures chan string

func (f failures) Enabled(context.Context, slog.Level) bool { return true }
func (f failures) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f failures) WithGroup(string) slog.Handler            { return f }

func (f failures) Handle(_ context.Context, r slog.Record) error {
	f <- r.Message
	return nil
}

// A caller whose set-up fails costs its own set-up only.
func TestFailedSetUpIsCountedAndTheNextServed(t *testing.T) {
	loc := newLocal(t)
	failed := make(failures, 1)
	l, err := Listen(Config{Logger: slog.New(failed)}, loc)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, _, err := loc.DialUnix(context.Background(), Service, someone)
	if err != nil {
		t.Fatal(err)
	}
	raw.Write([]byte("GET / HTTP/1.1\r\n"))
	select {
	case <-failed:
	case <-time.After(20 * time.Second):
		t.Fatal("the set-up has not failed")
	}
	raw.Close()
	linkOver(t, l, &Dialer{Local: loc})
	if s := l.in.Stats(); s.Proven != 1 || s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

func TestStreamsThatNobodyAcceptsAreClosed(t *testing.T) {
	loc := newLocal(t)
	l, err := Listen(Config{}, loc)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := (&Dialer{Local: loc}).Dial(context.Background(), someone)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a stream of a closed listener gave bytes")
	}
}

func TestDialerIsChecked(t *testing.T) {
	newLocal(t) // skips where there is no carrier
	if _, _, err := (&Dialer{}).Dial(context.Background(), identity.DeviceID{1}); err == nil {
		t.Error("dialled without a local dialer")
	}
	if _, _, err := (&Dialer{Config: Config{RegionSize: 1}}).Dial(context.Background(), identity.DeviceID{1}); err == nil {
		t.Error("dialled with a region of a byte")
	}
}
