package connectionmanager_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
)

// A transfer outlives a cut that is shorter than the link's patience. A longer one
// ends it at both ends with the cause, never as if it was complete, while the link
// with a third device goes on.
//
// fault: F2
func TestS28_APartitionEndsALinkAtBothEndsOrNotAtAll(t *testing.T) {
	for name, c := range map[string]struct {
		cut time.Duration
		end error
	}{"short": {3 * time.Second, nil}, "long": {time.Hour, multiplex.ErrDead}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peerlinktest.New(t)
				alice, bob, carol := n.Peer("alice"), n.Peer("bob"), n.Peer("carol")
				n.Shape(peerlinktest.Line{Delay: 20 * time.Millisecond, Rate: 1 << 20, Loss: 0.01})
				data := pattern(5, 8<<20)
				sent := make(chan error, 1)
				alice.Serve("file://*", func(s *channel.Socket) {
					_, err := s.Write(data)
					sent <- errors.Join(err, s.CloseWrite())
				})
				carol.Serve("chat://*", func(s *channel.Socket) { _, _ = io.Copy(s, s) })
				file, chat := bob.Connect(alice, "file://1"), alice.Connect(carol, "chat://1")
				time.AfterFunc(2*time.Second, func() { n.Partition([]string{"alice", "carol"}, []string{"bob"}) })
				time.AfterFunc(2*time.Second+c.cut, func() { n.Heal() })
				began := time.Now()
				got, err := io.ReadAll(file)
				if !errors.Is(err, c.end) || !bytes.HasPrefix(data, got) || c.end == nil && len(got) != len(data) {
					t.Errorf("read %d of %d bytes, then %v", len(got), len(data), err)
				}
				if err := <-sent; !errors.Is(err, c.end) {
					t.Errorf("the sender: %v", err)
				}
				if d := time.Since(began); d > time.Minute {
					t.Errorf("both knew after %v", d)
				}
				exchange(t, chat, "still here")
			})
		})
	}
}
