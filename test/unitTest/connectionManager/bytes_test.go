package connectionmanager_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"peerlink/channel"
)

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// scaled is how many channels the rows with tens of thousands use here; the
// full size is a load test.
const scaled = 500

func TestS10_EveryByteBeforeTheClose(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		data := pattern(1, scaled)
		var wg sync.WaitGroup
		wg.Go(func() {
			for range scaled {
				b := await(t, channels, never)
				wg.Go(func() {
					defer b.Close()
					var i int
					_, _ = fmt.Sscanf(b.URI(), "n://%d", &i)
					if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data[:i]) {
						t.Errorf("channel %d: %d bytes, %v", i, len(got), err)
					}
				})
			}
		})
		for i := range scaled {
			a := connect(t, alice, bob, fmt.Sprintf("n://%d", i))
			if n, err := a.Write(data[:i]); err != nil || n != i {
				t.Errorf("channel %d: wrote %d, %v", i, n, err)
			}
			_ = a.Close()
		}
		wg.Wait()
	})
}

func TestS22_InterleavedWritesKeepTheirChannels(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		const writes, size = 300, 8000
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		var wg sync.WaitGroup
		for i := range 3 {
			a := connect(t, alice, bob, fmt.Sprint("n://", i))
			b := await(t, channels, never)
			want := pattern(byte(i), writes*size)
			wg.Go(func() {
				defer a.Close()
				for k := range writes {
					if _, err := a.Write(want[k*size : (k+1)*size]); err != nil {
						t.Error(err)
						return
					}
				}
			})
			wg.Go(func() {
				defer b.Close()
				if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
					t.Errorf("channel %d: %d of %d bytes, %v", i, len(got), len(want), err)
				}
			})
		}
		wg.Wait()
	})
}

func TestS64_WouldBlockSendsNothing(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		a := connect(t, alice, bob, "n://1")
		b := await(t, channels, never)
		msg := pattern(7, 10_000)
		sent := 0
		for {
			err := a.TrySend(msg)
			if errors.Is(err, channel.ErrWouldBlock) && a.Stats().BytesSent >= 200_000 {
				break // the peer's credit is used up, as nobody reads
			}
			if err == nil {
				sent++
			} else if !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
		}
		got := make([]byte, sent*len(msg))
		if _, err := io.ReadFull(b, got); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there is room again", func() bool {
			err := a.TrySend(msg)
			if err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
			return err == nil
		})
		sent++
		go func() { _ = a.CloseWrite() }()
		rest, err := io.ReadAll(b)
		if got = append(got, rest...); err != nil || !bytes.Equal(got, bytes.Repeat(msg, sent)) {
			t.Errorf("%d messages sent, %d bytes arrived, %v", sent, len(got), err)
		}
	})
}

func TestS65_LargeMessageAndManySmallOnes(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		a := connect(t, alice, bob, "n://1")
		want := pattern(9, 16<<20)
		go func() {
			half := len(want) / 2
			_, _ = a.Write(want[:half])
			for i := half; i < len(want); i += 4096 {
				_, _ = a.Write(want[i : i+4096])
			}
			_ = a.CloseWrite()
		}()
		if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
		}
	})
}

// Frames, stalls by credit and messages that would have had to wait are counted
// for each channel, each link and each carrier, also after the end.
func TestS63_StallsAndFramesAreCounted(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		incoming := bob.accepting(t, "*")
		a := connect(t, alice, bob, "sink://")
		b := await(t, incoming, never)
		for a.TrySend(make([]byte, 10_000)) == nil {
			continue // until the window or the line is full
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := a.Write(make([]byte, 2<<20))
			wrote <- err
		}()
		eventually(t, "the write waits for credit", func() bool { return a.Stats().Stalls > 0 })
		go func() { _, _ = io.Copy(io.Discard, b) }()
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		ch, l := a.Stats(), alice.Connections()[0]
		if ch.WouldBlocks == 0 || ch.FramesSent < 2 || l.WouldBlocks != ch.WouldBlocks || l.Stalls < ch.Stalls || l.FramesSent < ch.FramesSent {
			t.Errorf("channel %+v\nlink %+v", ch, l.Traffic)
		}
		eventually(t, "all has come", func() bool { return b.Stats().BytesReceived == a.Stats().BytesSent })
		if got := b.Stats(); got.FramesReceived != a.Stats().FramesSent {
			t.Errorf("%d frames sent, %d received", a.Stats().FramesSent, got.FramesReceived)
		}
		before := alice.Metrics().Carriers[l.Carrier].Traffic
		alice.CloseConnectionsWith(bob.id.DeviceID())
		after := alice.Metrics()
		of := after.Carriers[l.Carrier].Traffic
		if of.Stalls < before.Stalls || of.WouldBlocks != before.WouldBlocks || of.FramesSent < before.FramesSent || after.Stalls != of.Stalls {
			t.Errorf("before the end %+v\nafter it %+v", before, after)
		}
	})
}
