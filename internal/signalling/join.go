package signalling

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
)

const (
	// tryFor is what a line has to take a message while there are others: an
	// answer of a far server takes well under a second, a broken line never answers.
	tryFor = 3 * time.Second
	// heardKept is of how many devices it is known over which line they talk.
	heardKept = 1024
)

// Joined is several lines as one. Make one with Join; its methods may be called
// concurrently.
type Joined struct {
	queue
	lines []Line
	heard *lru.Cache[identity.DeviceID, int]
	life  life.Group
}

// Join reads the lines, alone. What the members of a trust store send has room of
// its own; nil: there are none. A nil log drops what is logged. Close the Joined
// before the lines.
func Join(trust *identity.Trust, log *slog.Logger, lines ...Line) *Joined {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	j := &Joined{queue: newQueue(trust), lines: lines, heard: quota.NewLRU[identity.DeviceID, int](heardKept)}
	j.life.Go(func(ctx context.Context) {
		errs := make([]error, len(lines))
		var readers sync.WaitGroup
		for i, l := range lines {
			readers.Go(func() {
				errs[i] = Read(ctx, l, log, func(from identity.Peer, msg []byte) {
					j.heard.Add(from.Device, i)
					if !j.put(from, msg) {
						log.Debug("signalling: message dropped, nothing receives", "from", from.Device)
					}
				})
				if ctx.Err() == nil {
					log.Warn("signalling: a line has ended", "err", errs[i])
				}
			})
		}
		readers.Wait()
		j.end(errors.Join(append(errs, errClosed)...))
	})
	return j
}

// Send tries the line over which the device was heard last, then the others in
// order, 3 s each but for the last one, until one takes the message.
func (j *Joined) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	first, _ := j.heard.Get(to) // or else 0
	var order []int
	for i := range j.lines {
		if i == first {
			order = slices.Insert(order, 0, i)
		} else {
			order = append(order, i)
		}
	}
	var errs []error
	for n, i := range order {
		err := func() error {
			tctx := ctx
			if n < len(order)-1 {
				var cancel context.CancelFunc
				tctx, cancel = context.WithTimeout(ctx, tryFor)
				defer cancel()
			}
			return j.lines[i].Send(tctx, to, msg)
		}()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return errors.New("signalling: there is no line")
	}
	return errors.Join(errs...)
}

// Close ends Receive and waits for the reading to end. The lines stay open.
func (j *Joined) Close() error {
	j.life.EndWith(errClosed)
	j.life.Wait()
	return nil
}
