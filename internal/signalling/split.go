package signalling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/packed"
)

// Kinds are those from From to To, both included.
type Kinds struct{ From, To uint8 }

// maxKey is the length in bytes of a key that is passed over.
const maxKey = 32

// Splitter lets several carriers read one Line, each the kinds that are its
// own. Make one with Split.
type Splitter struct {
	line     Line
	branches []*Branch
	dropped  atomic.Uint64 // messages of no branch's kind, or without room
	life     life.Group
}

// Branch is one carrier's part of a Splitter: a Line. Its methods may be called
// concurrently.
type Branch struct {
	queue
	kinds Kinds
	line  Line
}

// Send sends over the Splitter's line, whatever kind it is.
func (b *Branch) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	return b.line.Send(ctx, to, msg)
}

// Split reads line, alone, and hands each message to the first branch with its
// kind. What the members of a trust store send has room of its own; nil: there are
// none. A nil log drops what is logged. Close the Splitter before the line.
func Split(line Line, trust *identity.Trust, log *slog.Logger, kinds ...Kinds) *Splitter {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	s := &Splitter{line: line}
	for _, k := range kinds {
		s.branches = append(s.branches, &Branch{queue: newQueue(trust), kinds: k, line: line})
	}
	s.life.Go(func(ctx context.Context) {
		err := Read(ctx, line, log, s.take)
		for _, b := range s.branches {
			b.end(err)
		}
	})
	return s
}

// Branch returns the one with the i-th kinds, counted from 0.
func (s *Splitter) Branch(i int) *Branch { return s.branches[i] }

// take hands a message on. It does not block.
func (s *Splitter) take(from identity.Peer, msg []byte) {
	k, err := Kind(msg)
	if err == nil {
		for _, b := range s.branches {
			if k >= b.kinds.From && k <= b.kinds.To {
				if !b.put(from, msg) {
					s.dropped.Add(1)
				}
				return
			}
		}
	}
	s.dropped.Add(1)
}

// Close ends the branches and waits for the reading to end. The line stays open.
func (s *Splitter) Close() error {
	s.life.EndWith(errClosed)
	s.life.Wait()
	return nil
}

// Kind returns a message's kind. The rest of the message need not be valid.
func Kind(msg []byte) (uint8, error) {
	r := packed.NewReader(msg)
	n, err := r.Map(packed.MaxCount)
	for i := 0; err == nil && i < n; i++ {
		var key string
		if key, err = r.String(maxKey); err != nil {
			break
		}
		if key == "k" {
			k, err := r.Uint(255)
			if err != nil {
				return 0, fmt.Errorf("signalling: kind: %w", err)
			}
			return uint8(k), nil
		}
		err = r.Skip()
	}
	if err == nil {
		err = errors.New("there is none")
	}
	return 0, fmt.Errorf("signalling: kind: %w", err)
}
