package codes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"peerlink"
	"peerlink/identity"
)

const (
	// maxProofs is how many proofs of one code run at once, maxTries how many
	// of them may be one device's: a lost one may still wait for its time-out when
	// the device comes again.
	maxProofs = 16
	maxTries  = 4
	// lastWordWait is how long proofs that run when a code dies may take to say
	// so to the other side.
	lastWordWait = time.Second
	// doTimeout is how long two devices that have proven a code may take for what
	// they are to do: some kilobytes.
	doTimeout = 30 * time.Second
)

// Purpose is what a code is for. A code for one purpose proves nothing for
// another.
type Purpose string

// The purposes.
const (
	Contact Purpose = "contact" // two people become contacts
	Device  Purpose = "device"  // a device comes into an account
)

// URI is the channel on which a code is proven. It is listened on only while the
// code is good, so a stranger reaches nothing else by it.
func (p Purpose) URI(number int) string { return fmt.Sprintf("%s://%d", words[p].scheme, number) }

// words are what differs between the purposes in what people are told.
var words = map[Purpose]struct{ scheme, nothing, own, shower, again string }{
	Contact: {"invite", "nobody invites under number", "it is for somebody else's", "the one that invites", "ask for a new one"},
	Device:  {"device-add", "no device shows a code with the number", "type it on the device that is in the account already", "the new one", "have the new device show another one"},
}

// Network is the device that shows and uses codes, and its way to others. All
// fields are required. Its methods may be called concurrently.
type Network struct {
	Manager    *peerlink.ConnectionManager
	Rendezvous Rendezvous
	Me         identity.DeviceID
	// Listen takes channels of a URI: the manager's Listen, or one around it.
	Listen func(uri string) (net.Listener, error)
	Logger *slog.Logger
}

// Showing is a code that Show shows.
type Showing struct {
	Purpose Purpose
	// Within is how long the code is good; 0, and what is longer, is Life.
	Within time.Duration
	// Code is called first, with the code and the end of its time.
	Code func(c Code, until time.Time)
	// Serve does with a device that has proven the code what the code is for. It
	// may be called again, and at once, for the same device, and for no other. nil
	// ends the showing. It is bounded by ctx and 30 s.
	Serve func(ctx context.Context, conn net.Conn, peer identity.Peer) error
	// Failed is told why a device has not come to an end, and how many wrong
	// guesses are left. No two calls of it run at once.
	Failed func(err error, left int)
}

var errGuessed = fmt.Errorf("somebody tried wrong words %d times, so the code is good no more: make a new one, and tell it to one person only", MaxWrong)

// usedError is the end of a code that was used.
type usedError struct{ by identity.Peer }

// Error says so.
func (usedError) Error() string { return "the code was used" }

// Show makes a code and lets devices prove it, many at once, so that one that
// hangs keeps no other waiting. It returns the device for which Serve has
// succeeded, or else why the code is good no more: its time is over (the error matches
// os.ErrDeadlineExceeded), ctx has ended (its cause), it was guessed at too
// often, or its number was taken over. It waits for its goroutines.
func (n *Network) Show(ctx context.Context, s Showing) (by identity.Peer, err error) {
	number, until, err := Claim(ctx, n.Rendezvous)
	if err != nil {
		return by, err
	}
	l, err := n.Listen(s.Purpose.URI(number))
	if err != nil {
		return by, err
	}
	if s.Within <= 0 || s.Within > Life {
		s.Within = Life
	}
	good := time.Now().Add(s.Within)
	if good.After(until) {
		good = until
	}
	sh := &shown{Network: n, Showing: s, code: Code{number, NewWords()}, guard: NewGuard()}
	s.Code(sh.code, good)
	return sh.run(ctx, l, until, good)
}

// shown is a code that is good.
type shown struct {
	*Network
	Showing
	code  Code
	guard *Guard
	wg    sync.WaitGroup
	end   context.CancelCauseFunc

	running sync.Mutex
	proofs  []*proof // that run, the oldest first; guarded by running

	mu sync.Mutex // held for calls of Failed
}

// run takes devices until the code's end.
func (sh *shown) run(ctx context.Context, l net.Listener, until, good time.Time) (by identity.Peer, err error) {
	proving, stopProving := context.WithCancel(ctx)
	defer stopProving()
	ctx, done := context.WithDeadlineCause(ctx, good, overError{sh.Within})
	defer done()
	ctx, sh.end = context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	sh.wg.Go(func() { sh.end(Hold(ctx, sh.Rendezvous, sh.code.Number, until)) })
	sh.wg.Go(func() { sh.accept(proving, l) })
	select {
	case <-sh.guard.Dead():
		sh.end(errGuessed)
	case <-ctx.Done():
	}
	var used usedError
	if err = context.Cause(ctx); errors.As(err, &used) {
		stopProving()
		err = nil
	}
	defer time.AfterFunc(lastWordWait, stopProving).Stop()
	sh.wg.Wait()
	return used.by, err
}

// accept takes channels until the listener closes.
func (sh *shown) accept(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			sh.end(err) // which changes nothing where the end has closed it
			return
		}
		peer, _ := peerlink.PeerOf(conn)
		ctx, cancel := context.WithCancelCause(ctx)
		p := &proof{peer.Device, cancel}
		if !sh.begin(p) {
			cancel(nil)
			_ = conn.Close()
			continue
		}
		sh.wg.Go(func() {
			defer sh.leave(p)
			defer conn.Close()
			if err := sh.serve(ctx, conn, peer); err != nil {
				sh.Logger.Debug("a code was not used", "for", sh.Purpose, "device", peer.Device.Short(), "err", err)
				if errors.Is(err, errCrowded) {
					return // which is no news for a person: it comes again
				}
				sh.mu.Lock()
				defer sh.mu.Unlock()
				sh.Failed(err, MaxWrong-sh.guard.Wrong())
				return
			}
			sh.end(usedError{peer})
		})
	}
}

// proof is one that runs.
type proof struct {
	of  identity.DeviceID
	end context.CancelCauseFunc
}

// errCrowded ends a proof that is the oldest of too many.
var errCrowded = errors.New("too many devices came while this one was proving the code")

// begin notes a proof, unless its device has as many as one may have. All devices are
// strangers until one has proven the code, so where there are too many proofs a new one
// is not turned away: the oldest ends of the device that has most, which has waited for
// longest. It may come again, and one that has proven the code goes on.
func (sh *shown) begin(p *proof) bool {
	winner := sh.guard.Winner()
	sh.running.Lock()
	defer sh.running.Unlock()
	of, most := map[identity.DeviceID]int{}, 0
	for _, r := range sh.proofs {
		of[r.of]++
		if r.of != winner {
			most = max(most, of[r.of])
		}
	}
	if of[p.of] >= maxTries {
		return false
	}
	if len(sh.proofs) >= maxProofs {
		i := slices.IndexFunc(sh.proofs, func(r *proof) bool { return r.of != winner && of[r.of] == most })
		sh.proofs[i].end(errCrowded)
		sh.proofs = slices.Delete(sh.proofs, i, i+1)
	}
	sh.proofs = append(sh.proofs, p)
	return true
}

// leave notes that a proof has ended.
func (sh *shown) leave(p *proof) {
	p.end(nil)
	sh.running.Lock()
	defer sh.running.Unlock()
	sh.proofs = slices.DeleteFunc(sh.proofs, func(r *proof) bool { return r == p })
}

// serve lets one device prove the code, and do what it is for.
func (sh *shown) serve(ctx context.Context, conn net.Conn, peer identity.Peer) error {
	_, err := Prove(ctx, conn, Terms{
		Role: Inviter, Purpose: string(sh.Purpose), Code: sh.code, Me: sh.Me, Peer: peer.Device, Guard: sh.guard,
	})
	if err != nil {
		return err
	}
	return bounded(ctx, conn, doTimeout, func() error { return sh.Serve(ctx, conn, peer) })
}
