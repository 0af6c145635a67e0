package calls_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"peerlink"
	"peerlink/internal/calls"
)

// Who stops accepting turns callers away, for the moment; what it has and what it
// calls itself go on.
//
// case: E3
func TestStopAcceptingLeavesStreamsAlone(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		accepted := make(chan net.Conn, 1)
		go func() {
			conn, _, err := b.Accept(ctx)
			if err != nil {
				t.Error(err)
			}
			accepted <- conn
		}()
		near, _, err := a.Dial(ctx, b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		far := <-accepted
		waiting := make(chan error, 1)
		go func() {
			_, _, err := b.Accept(ctx)
			waiting <- err
		}()
		b.transport.(peerlink.Stopper).StopAccepting()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		var no *calls.RefusedError
		if _, _, err := a.Dial(ctx, b.id.DeviceID()); !errors.As(err, &no) || !no.Temporary() {
			t.Errorf("a call: %v", err)
		}
		talk(t, ctx, b, a)
		go func() {
			_, _ = near.Write(make([]byte, 1<<20))
			_ = near.Close()
		}()
		if n, err := io.Copy(io.Discard, far); n != 1<<20 || err != nil {
			t.Errorf("%d bytes, then %v", n, err)
		}
		_ = far.Close()
	})
}
