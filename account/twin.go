package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"time"

	"peerlink/dht"
	"peerlink/internal/life"
	"peerlink/internal/pause"
)

const (
	// helloEvery is how often a device asks whether it runs elsewhere, too, ± 10 %;
	// the first time as soon as it can be reached. Two that came apart in the
	// network are found when it is whole again.
	helloEvery = 10 * time.Minute
	// helloLife is how long nodes keep the question: an answer after a restart of
	// the one that asked finds nobody.
	helloLife = 10 * time.Second
	// maxAnswered is how many other processes are answered in a minute, once each:
	// a copied key has a few copies.
	maxAnswered = 8
	answerEvery = time.Minute
)

// instance is random, of one process. Only an answer for this process's instance
// proves that another one runs: a hello may have waited at a node since before a
// restart.
type instance [16]byte

// Twin is another process, on whichever machine, that acts with the same device
// key as this one.
type Twin struct {
	// Started is when it began, by its clock.
	Started time.Time
	// Yields says that this process is the one to end: it began later. Of two
	// exactly one has it.
	Yields bool
}

// twinLetter is a letter of a device to itself, field by field: see docs/protocol.md,
// "Devices of an account".
type twinLetter struct {
	Magic    [4]byte
	Kind     byte // hello or answer
	From, To instance
	Started  uint64 // Unix milliseconds
}

var twinMagic = [4]byte([]byte("PLT1"))

func (l twinLetter) encode() []byte {
	l.Magic = twinMagic
	b, _ := binary.Append(nil, binary.BigEndian, l) // fails for types without a fixed size only
	return b
}

func parseTwinLetter(b []byte) (l twinLetter, ok bool) {
	n, err := binary.Decode(b, binary.BigEndian, &l)
	return l, err == nil && n == len(b) && l.Magic == twinMagic && (l.Kind == 'h' || l.Kind == 'a')
}

// twins finds other processes with this one's key. It is a plain state machine:
// hello may be called concurrently with take, and take from one goroutine.
type twins struct {
	me       instance
	started  uint64 // Unix milliseconds
	answered map[instance]time.Time
}

func newTwins(now time.Time) *twins {
	t := &twins{started: uint64(max(now.UnixMilli(), 0)), answered: map[instance]time.Time{}}
	_, _ = rand.Read(t.me[:]) // never fails
	return t
}

func (t *twins) hello() []byte { return twinLetter{Kind: 'h', From: t.me, Started: t.started}.encode() }

// take reads a letter of this device to itself: what is to be answered, if
// anything, and the twin, if it proves one.
func (t *twins) take(b []byte, now time.Time) (answer []byte, found *Twin) {
	l, ok := parseTwinLetter(b)
	if !ok || l.From == t.me {
		return nil, nil
	}
	if l.Kind == 'a' {
		if l.To != t.me {
			return nil, nil
		}
		found = &Twin{Started: time.UnixMilli(int64(min(l.Started, 1<<53))), Yields: t.yields(l)}
	}
	maps.DeleteFunc(t.answered, func(_ instance, at time.Time) bool { return now.Sub(at) >= answerEvery })
	if _, done := t.answered[l.From]; done || len(t.answered) >= maxAnswered {
		return nil, found
	}
	t.answered[l.From] = now
	return twinLetter{Kind: 'a', From: t.me, To: l.From, Started: t.started}.encode(), found
}

// yields tells whether this process began later; both sides compare the same
// numbers.
func (t *twins) yields(l twinLetter) bool {
	if l.Started != t.started {
		return l.Started < t.started
	}
	return bytes.Compare(l.From[:], t.me[:]) < 0
}

// watchTwins asks through the DHT whether this device runs elsewhere, until the
// returned function is called.
func (a *Account) watchTwins(node *dht.Node, log *slog.Logger) (stop func() error) {
	var group life.Group
	t := newTwins(time.Now())
	self := a.f.id.DeviceID()
	group.Go(func(ctx context.Context) {
		for err := node.Ready(ctx); err == nil; err = pause.For(ctx, helloEvery*9/10+mrand.N(helloEvery/5)) {
			if _, err := node.SendLetter(ctx, self, t.hello(), helloLife); err != nil {
				log.Debug("account: whether this device runs elsewhere was not asked", "err", err)
			}
		}
	})
	group.Go(func(ctx context.Context) {
		for {
			from, msg, _, err := node.ReceiveLetter(ctx)
			if err != nil {
				return
			}
			if from.Device != self {
				continue // nothing else comes as a letter yet
			}
			answer, found := t.take(msg, time.Now())
			if answer != nil { // before either of them ends: the other one is to know, too
				if _, err := node.SendLetter(ctx, self, answer, helloLife); err != nil {
					log.Debug("account: another process of this device was not answered", "err", err)
				}
			}
			if found != nil {
				pause.Tell(a.twin, *found) // the first one is kept
			}
		}
	})
	return func() error {
		group.Close()
		return nil
	}
}

// Twin waits until another process is found that acts as this device, as after a
// copy of the account's folder to another machine, and returns it; ctx bounds the
// wait. It is found through the DHT, by both, some seconds after the second one
// can be reached. Of several calls one gets it. It may be called before Start.
func (a *Account) Twin(ctx context.Context) (Twin, error) {
	select {
	case t := <-a.twin:
		return t, nil
	case <-ctx.Done():
		return Twin{}, fmt.Errorf("account: %w", context.Cause(ctx))
	}
}
