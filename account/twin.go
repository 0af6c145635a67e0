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
	"sync"
	"time"

	"peerlink/dht"
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

// A letter of a device to itself, big-endian:
//
//	"PLT1" | kind:uint8, 'h' hello or 'a' answer | instance[16] | for[16], zeros in a hello
//	started:uint64, Unix milliseconds
//
// The instance is random, of one process. Only an answer for this process's
// instance proves that another one runs: a hello may have waited at a node since
// before a restart.
const (
	twinMagic   = "PLT1"
	instanceLen = 16
	twinLen     = len(twinMagic) + 1 + 2*instanceLen + 8
)

type instance [instanceLen]byte

// Twin is another process, on whichever machine, that acts with the same device
// key as this one.
type Twin struct {
	// Started is when it began, by its clock.
	Started time.Time
	// Yields says that this process is the one to end: it began later. Of two
	// exactly one has it.
	Yields bool
}

// twinLetter is such a letter.
type twinLetter struct {
	kind          byte
	from, to      instance
	startedMillis uint64
}

func (l twinLetter) encode() []byte {
	b := append([]byte(twinMagic), l.kind)
	b = append(append(b, l.from[:]...), l.to[:]...)
	return binary.BigEndian.AppendUint64(b, l.startedMillis)
}

func parseTwinLetter(b []byte) (l twinLetter, ok bool) {
	if len(b) != twinLen || string(b[:len(twinMagic)]) != twinMagic {
		return l, false
	}
	b = b[len(twinMagic):]
	l.kind = b[0]
	copy(l.from[:], b[1:])
	copy(l.to[:], b[1+instanceLen:])
	l.startedMillis = binary.BigEndian.Uint64(b[1+2*instanceLen:])
	return l, l.kind == 'h' || l.kind == 'a'
}

// twins finds other processes with this one's key. It is a plain state machine.
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

func (t *twins) hello() []byte { return twinLetter{'h', t.me, instance{}, t.started}.encode() }

// take reads a letter of this device to itself: what is to be answered, if
// anything, and the twin, if it proves one.
func (t *twins) take(b []byte, now time.Time) (answer []byte, found *Twin) {
	l, ok := parseTwinLetter(b)
	if !ok || l.from == t.me {
		return nil, nil
	}
	if l.kind == 'a' {
		if l.to != t.me {
			return nil, nil
		}
		found = &Twin{Started: time.UnixMilli(int64(min(l.startedMillis, 1<<53))), Yields: t.yields(l)}
	}
	maps.DeleteFunc(t.answered, func(_ instance, at time.Time) bool { return now.Sub(at) >= answerEvery })
	if _, done := t.answered[l.from]; done || len(t.answered) >= maxAnswered {
		return nil, found
	}
	t.answered[l.from] = now
	return twinLetter{'a', t.me, l.from, t.started}.encode(), found
}

// yields tells whether this process began later; both sides compare the same
// numbers.
func (t *twins) yields(l twinLetter) bool {
	if l.startedMillis != t.started {
		return l.startedMillis < t.started
	}
	return bytes.Compare(l.from[:], t.me[:]) < 0
}

// watchTwins asks through the DHT whether this device runs elsewhere, until the
// returned function is called.
func (a *Account) watchTwins(node *dht.Node, log *slog.Logger) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t := newTwins(time.Now())
	self := a.f.id.DeviceID()
	var mu sync.Mutex // guards t
	wg.Go(func() {
		if node.Ready(ctx) != nil {
			return
		}
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				if _, err := node.SendLetter(ctx, self, t.hello(), helloLife); err != nil {
					log.Debug("account: whether this device runs elsewhere was not asked", "err", err)
				}
				timer.Reset(helloEvery*9/10 + mrand.N(helloEvery/5))
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() {
		for {
			from, msg, _, err := node.ReceiveLetter(ctx)
			if err != nil {
				return
			}
			if from.Device != self {
				continue // nothing else comes as a letter yet
			}
			mu.Lock()
			answer, found := t.take(msg, time.Now())
			mu.Unlock()
			if answer != nil { // before anybody ends: the other one is to know, too
				if _, err := node.SendLetter(ctx, self, answer, helloLife); err != nil {
					log.Debug("account: another process of this device was not answered", "err", err)
				}
			}
			if found != nil {
				a.foundTwin(*found)
			}
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return nil
	}
}

// foundTwin keeps the first one.
func (a *Account) foundTwin(t Twin) {
	select {
	case a.twin <- t:
	default:
	}
}

// Twin waits until another process is found that acts as this device, as after a
// copy of the account's folder to another machine, and returns it; ctx bounds the
// wait. It is found through the DHT, by both, some seconds after the second one
// can be reached. Of several calls one gets it.
func (a *Account) Twin(ctx context.Context) (Twin, error) {
	select {
	case t := <-a.twin:
		return t, nil
	case <-ctx.Done():
		return Twin{}, fmt.Errorf("account: %w", context.Cause(ctx))
	}
}
