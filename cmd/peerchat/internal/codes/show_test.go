package codes

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"peerlink"
	"peerlink/identity"
)

// door is a listener of channels with devices.
type door chan net.Conn

func (d door) Accept() (net.Conn, error) {
	if c, ok := <-d; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (door) Close() error   { return nil }
func (door) Addr() net.Addr { return nil }

// knock opens a channel as a device.
func (d door) knock(as identity.DeviceID) net.Conn {
	here, there := net.Pipe()
	d <- visitor{there, &peerlink.Addr{Peer: identity.Peer{Device: as}}}
	return here
}

type visitor struct {
	net.Conn
	peer *peerlink.Addr
}

func (v visitor) RemoteAddr() net.Addr { return v.peer }

// 100 devices hold as many proofs of a code as they can, and prove nothing. The one
// that knows the code proves it meanwhile, and then is not put out by those that come.
//
// case: S12
func TestDevicesThatStallKeepNobodyFromACode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := make(door)
		var used []identity.DeviceID
		in, goOn := make(chan struct{}), make(chan struct{})
		sh := &shown{
			Network: &Network{Me: alice, Logger: slog.New(slog.DiscardHandler)}, code: code, guard: NewGuard(),
			end: func(error) {},
			Showing: Showing{Purpose: Contact, Serve: func(ctx context.Context, _ net.Conn, p identity.Peer) error {
				close(in)
				select {
				case <-goOn:
					used = append(used, p.Device)
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}, Failed: func(err error, _ int) {
				if errors.Is(err, errCrowded) {
					t.Error("a person is told of each that stalls")
				}
			}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		sh.wg.Go(func() { sh.accept(ctx, d) })
		var held []net.Conn
		stall := func() {
			for i := range 100 {
				for range maxTries + 1 {
					held = append(held, d.knock(identity.DeviceID{9, byte(i)}))
				}
			}
			synctest.Wait()
			if len(sh.proofs) > maxProofs {
				t.Errorf("%d proofs run, want at most %d", len(sh.proofs), maxProofs)
			}
		}
		stall()
		c := d.knock(bob)
		held = append(held, c)
		if _, err := Prove(t.Context(), c, terms(Joiner, alice, nil)); err != nil {
			t.Errorf("the one that knows the code: %v", err)
		}
		<-in
		stall()
		close(goOn)
		synctest.Wait()
		if !slices.Equal(used, []identity.DeviceID{bob}) {
			t.Errorf("the code was used by %v", used)
		}
		cancel()
		close(d)
		for _, c := range held {
			_ = c.Close()
		}
		sh.wg.Wait()
		if len(sh.proofs) != 0 {
			t.Errorf("%d proofs are left", len(sh.proofs))
		}
	})
}
