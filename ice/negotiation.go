package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/pause"
	"peerlink/internal/route"
)

// path is a way that has been checked and may be taken.
type path struct {
	route.Path
	class class
	near  bool // to an address of one of the peer's interfaces
	vague bool // to a host where the peer has named no address: it may be a relay
	// take nominates the path and proves the device at its end.
	take func(ctx context.Context) (net.Conn, identity.Peer, error)
	// drop gives the path up.
	drop func()
	// apart: the device takes the stream apart from the negotiation, which it has to
	// be told is over.
	apart bool
}

// attemptsKept bounds what a negotiation remembers for its error: every
// candidate of both sides and engines once.
const attemptsKept = 2 * maxCandidates

// negotiation is one offer and what comes of it, on either side. It lives as
// long as the Dial that made it, or until the device that was called has
// delivered a stream or run out of time.
type negotiation struct {
	role role
	id   requestID
	peer identity.DeviceID
	key  checkKey

	// ctx ends with the negotiation: what engines start for it, including what
	// comes in from outside, ends with it too.
	ctx    context.Context
	cancel context.CancelCauseFunc

	udp   *udpSession                 // set by the UDP engine before its start
	price atomic.Pointer[calls.Price] // of what is sent on the peer's word; nil: a member's, or no answer yet
	began time.Time
	own   []netip.Addr // addresses of this machine, as they were at the beginning

	notify     chan struct{}  // a path was added, or has become better; holds 1
	deliveredc chan delivered // of the path that has won (controlled); holds 1

	mu       sync.Mutex
	ended    bool
	engines  []engine               // that were started; nil before
	remote   map[string][]candidate // of the peer, by engine
	early    map[string][]candidate // what came before the engines were started
	told     map[string][]candidate // to the peer
	trickled int                    // signals with further candidates
	won      bool
	paths    []*path
	attempts []attempt
	running  sync.WaitGroup // Add only under mu and before ended
}

var errEnded = errors.New("the negotiation is over")

func newNegotiation(ctx context.Context, r role, id requestID, peer identity.DeviceID) *negotiation {
	n := &negotiation{
		role: r, id: id, peer: peer, began: time.Now(),
		notify:     make(chan struct{}, 1),
		deliveredc: make(chan delivered, 1),
		remote:     make(map[string][]candidate),
		early:      make(map[string][]candidate),
		told:       make(map[string][]candidate),
	}
	n.ctx, n.cancel = context.WithCancelCause(ctx)
	return n
}

// spawn runs f until the negotiation ends, which waits for it. It returns
// false, and does not run f, where it has ended.
func (n *negotiation) spawn(f func(ctx context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return false
	}
	n.running.Go(func() { f(n.ctx) })
	return true
}

// end cancels everything that runs, waits for it and drops the paths that were
// not taken.
func (n *negotiation) end() {
	n.mu.Lock()
	n.ended = true
	paths := n.paths
	n.paths = nil
	n.mu.Unlock()
	n.cancel(errEnded)
	for _, p := range paths {
		p.drop()
	}
	n.running.Wait()
}

// addPath hands a checked path over; a negotiation that has ended drops it.
func (n *negotiation) addPath(p *path) {
	n.mu.Lock()
	if n.ended || len(n.paths) == maxCandidates {
		n.mu.Unlock()
		p.drop()
		return
	}
	n.paths = append(n.paths, p)
	n.mu.Unlock()
	pause.Tell(n.notify, struct{}{})
}

// patienceStep is how a wait for something better is cut. A machine that is busy
// is late at the end of each piece, and so waits longer, as it is late with the
// checks that are waited for; one long wait would only be late once.
const patienceStep = 10 * time.Millisecond

// pause returns a channel that is closed d from now, or later on a busy machine.
func (n *negotiation) pause(d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	n.spawn(func(ctx context.Context) {
		for ; d > 0; d -= patienceStep {
			if pause.For(ctx, min(d, patienceStep)) != nil {
				return
			}
		}
		close(over)
	})
	return over
}

// takePath removes and returns a path of the class that stands first in order
// and for which ready returns true, or nil if there is none.
func (n *negotiation) takePath(order []class, ready func(*path) bool) *path {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range order {
		for i, p := range n.paths {
			if p.class == c && ready(p) {
				n.paths = append(n.paths[:i], n.paths[i+1:]...)
				return p
			}
		}
	}
	return nil
}

// win settles the controlled side on one stream; it returns false for any
// further one.
func (n *negotiation) win() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended || n.won {
		return false
	}
	n.won = true
	return true
}

// tried remembers why something did not work, for the error at the end.
// What fails because the negotiation is over is no news: a dial may see that the
// time is up a moment before ctx does.
func (n *negotiation) tried(engine, target string, cause error) {
	if end, ok := n.ctx.Deadline(); n.ctx.Err() != nil || ok && !time.Now().Before(end) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.attempts {
		if a := &n.attempts[i]; a.engine == engine && a.target == target {
			a.cause, a.times, a.at = cause, a.times+1, time.Now()
			return
		}
	}
	if len(n.attempts) < attemptsKept {
		n.attempts = append(n.attempts, attempt{engine, target, cause, 1, time.Now()})
	}
}

// worked remembers that something led to a path.
func (n *negotiation) worked(engine, target string) { n.tried(engine, target, nil) }

// trying notes, once, what an attempt ends with unless it learns more.
func (n *negotiation) trying(engine, target string, cause error) {
	n.mu.Lock()
	known := slices.ContainsFunc(n.attempts, func(a attempt) bool { return a.engine == engine && a.target == target })
	n.mu.Unlock()
	if !known {
		n.tried(engine, target, cause)
	}
}

// tale lists what was tried and did not work, for the error of a negotiation whose
// context has ended. It is empty if nothing was.
func (n *negotiation) tale() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	for _, a := range n.attempts {
		if a.cause != nil {
			fmt.Fprintf(&b, "; %s %s (%d×): %v", a.engine, a.target, a.times, a.cause)
		}
	}
	return strings.Replace(b.String(), "; ", "tried ", 1)
}
