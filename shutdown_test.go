package peerlink_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/multiplex"
)

// stoppable notes how it is ended, and how many of its streams are open then.
type stoppable struct {
	*port
	stopped, closed, streams, atClose atomic.Int32
}

// counted is one of its streams.
type counted struct {
	net.Conn
	of   *stoppable
	once sync.Once
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.of.streams.Add(-1) })
	return err
}

func (s *stoppable) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	c, p, err := s.port.Dial(ctx, peer)
	if err != nil {
		return nil, p, err
	}
	s.streams.Add(1)
	return &counted{Conn: c, of: s}, p, nil
}

func (s *stoppable) StopAccepting() { s.stopped.Add(1) }

func (s *stoppable) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if s.stopped.Load() > 0 {
		return nil, identity.Peer{}, net.ErrClosed
	}
	return s.port.Accept(ctx)
}

func (s *stoppable) Close() error {
	s.closed.Add(1)
	s.atClose.Store(s.streams.Load())
	return s.port.Close()
}

// Carriers stop at once and are closed once no link is left; the error of Shutdown
// names each link that was cut.
//
// case: E3
func TestShutdownNamesTheLinksThatItCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		carrier := &stoppable{}
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) {
			carrier.port = c.Listeners[0].(*port)
			c.Dialers, c.Listeners = []peerlink.Dialer{carrier}, []peerlink.Listener{carrier}
		})
		bob, carol, dave := n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil), n.newDevice(t, "dave", nil)
		bob.accepted(t, "*")
		carol.accepted(t, "*")
		connect(t, alice, bob, "file://") // does not end
		done := connect(t, alice, carol, "file://")
		_ = done.Close()
		away := dave.accepted(t, "*")
		connect(t, alice, dave, "file://") // ends by the peer
		<-away

		ctx, cancel := within(3 * time.Second)
		defer cancel()
		down := make(chan error, 1)
		go func() { down <- alice.Shutdown(ctx) }()
		synctest.Wait()
		if carrier.streams.Load() != 2 || carrier.stopped.Load() != 1 || carrier.closed.Load() != 0 {
			t.Errorf("stopped %d times, closed %d times while links drain", carrier.stopped.Load(), carrier.closed.Load())
		}
		_ = dave.Close()
		err := <-down
		cut := map[identity.DeviceID]error{}
		if e := (*peerlink.ShutdownError)(nil); errors.As(err, &e) {
			for _, l := range e.Cut {
				cut[l.Peer.Device] = l.Err
				if l.Carrier != "memory" || l.ID.IsZero() {
					t.Errorf("%+v", l)
				}
			}
		}
		var bye *multiplex.GoingAwayError
		if len(cut) != 2 || !errors.Is(cut[bob.id.DeviceID()], context.DeadlineExceeded) || !errors.As(cut[dave.id.DeviceID()], &bye) {
			t.Errorf("%v: %v", err, cut)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if carrier.closed.Load() != 1 || carrier.atClose.Load() != 0 || carrier.stopped.Load() != 1 {
			t.Errorf("closed %d times, with %d streams open", carrier.closed.Load(), carrier.atClose.Load())
		}
	})
}

// Both sides may shut down at once: a link whose channels have ended is not cut by
// the other side's end.
func TestBothSidesShutDownAtOnce(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork("memory")
			alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
			accepted := bob.accepted(t, "*")
			a := connect(t, alice, bob, "file://")
			b := <-accepted
			ctx, cancel := within(time.Minute)
			defer cancel()
			down := make(chan error, 2)
			for _, d := range []*device{alice, bob} {
				go func() { down <- d.Shutdown(ctx) }()
			}
			synctest.Wait()
			if _, err := a.Write([]byte("bye")); err != nil {
				t.Error(err)
			}
			_ = a.Close()
			if got, err := io.ReadAll(b); err != nil || string(got) != "bye" {
				t.Errorf("%q, %v", got, err)
			}
			_ = b.Close()
			for range 2 {
				if err := <-down; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
