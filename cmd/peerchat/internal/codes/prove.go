package codes

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"peerlink/identity"
)

// proveTimeout is how long a proof may take: four messages over the worst link
// that we care for (600 ms), on a busy machine.
const proveTimeout = 15 * time.Second

// maxPurpose is the length in bytes of the longest purpose.
const maxPurpose = 64

// Role says which end of a code a device has.
type Role int

// The roles.
const (
	// Joiner was told the code. It speaks first.
	Joiner Role = iota
	// Inviter has made the code.
	Inviter
)

// Terms are what the two ends of a proof must agree on.
type Terms struct {
	Role Role
	// Purpose is what the code is for, 1 to 64 bytes, such as "contact": a code
	// for one purpose proves nothing for another.
	Purpose string
	// Code is the whole code.
	Code Code
	// Me and Peer are this device and the one that the link's handshake has
	// proven at the other end of the channel.
	Me, Peer identity.DeviceID
	// Guard is the code's, and required for an Inviter. A Joiner has none.
	Guard *Guard
}

func (t Terms) check() error {
	switch {
	case t.Role != Joiner && t.Role != Inviter, t.Purpose == "", len(t.Purpose) > maxPurpose:
		return errors.New("invite: a proof needs a role and a purpose of 1 to 64 bytes")
	case t.Me.IsZero(), t.Peer.IsZero(), t.Me == t.Peer:
		return errors.New("invite: a proof is between two devices")
	case t.Code.Words == "":
		return errors.New("invite: a code without words")
	case t.Role == Inviter && t.Guard == nil:
		return errors.New("invite: guesses must be counted: an inviter needs a guard")
	}
	return nil
}

// Prove proves to the other end of a channel that this one knows a code, and
// that the other does. It returns a key that only the two ends have, the same
// for both. The error matches ErrWrong or ErrSpent where that is the reason;
// otherwise the channel broke (io.ErrUnexpectedEOF), took more than 15 s
// (os.ErrDeadlineExceeded) or ctx has ended (its cause), and nothing was learnt
// about the code.
//
// An inviter may run many proofs of one code at once, each on a channel of its
// own, with the same guard. Prove reads no byte beyond the proof and leaves the
// channel open, without deadlines, for what the two have to say to each other
// now; after an error the channel is to be closed.
//
// A joiner that gets an error other than ErrWrong and ErrSpent may try again
// over a new channel: an inviter that has been convinced by a device stays so.
func Prove(ctx context.Context, conn net.Conn, t Terms) (key [KeyLen]byte, err error) {
	if err := t.check(); err != nil {
		return key, err
	}
	err = bounded(ctx, conn, proveTimeout, func() (err error) {
		if t.Role == Joiner {
			key, err = join(conn, t)
		} else {
			key, err = host(conn, t)
		}
		return err
	})
	if err != nil {
		return [KeyLen]byte{}, fmt.Errorf("prove an invite code: %w", err)
	}
	return key, nil
}

// bounded runs f, whose reads and writes of conn end with ctx and after a time.
func bounded(ctx context.Context, conn net.Conn, most time.Duration, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := conn.SetDeadline(time.Now().Add(most)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	ended := !stop() // and then the deadline may be set at any time
	switch {
	case ended && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
		return context.Cause(ctx)
	case err == nil:
		_ = conn.SetDeadline(time.Time{}) // fails where the peer, done as well, has closed it
	}
	return err
}

// join is the side that was told the code.
func join(conn net.Conn, t Terms) (key [KeyLen]byte, err error) {
	e, err := newExchange(t)
	if err != nil {
		return key, err
	}
	if _, err := conn.Write(e.share()); err != nil {
		return key, err
	}
	theirs, err := readShare(conn)
	if err != nil {
		return key, err
	}
	s, err := e.finish(t.Role, theirs)
	if err != nil {
		return key, deny(conn, noSense, err)
	}
	confirm, err := confirmed(conn, frame(kindConfirm, s.joiner...))
	if err != nil {
		return key, err
	}
	if !hmac.Equal(confirm, s.inviter) {
		return key, fmt.Errorf("%w: the other device says that they do, but does not prove that it knows them", ErrWrong)
	}
	return s.key, nil
}

// host is the side that has made the code. It says nothing about a guess before
// the guard has counted it, and proves nothing to whoever has not.
func host(conn net.Conn, t Terms) (key [KeyLen]byte, err error) {
	theirs, err := readShare(conn)
	if err != nil {
		return key, err
	}
	if err := t.Guard.admit(t.Peer); err != nil {
		return key, deny(conn, noSpent, err)
	}
	e, err := newExchange(t)
	if err != nil {
		return key, err
	}
	s, err := e.finish(t.Role, theirs)
	if err != nil {
		return key, deny(conn, noSense, err)
	}
	confirm, err := confirmed(conn, e.share())
	if err != nil {
		return key, err
	}
	switch err := t.Guard.judge(t.Peer, hmac.Equal(confirm, s.joiner)); {
	case errors.Is(err, ErrSpent) && !errors.Is(err, ErrWrong):
		return key, deny(conn, noSpent, err)
	case err != nil:
		return key, deny(conn, noWrong, err)
	}
	_, err = conn.Write(frame(kindConfirm, s.inviter...))
	return s.key, err
}

// share is the frame with this side's share.
func (e *exchange) share() []byte { return frame(kindShare, append([]byte{version}, e.mine...)...) }

// confirmed sends a frame and returns the peer's confirmation.
func confirmed(conn net.Conn, out []byte) ([]byte, error) {
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	return expect(conn, kindConfirm, macLen)
}

// readShare reads the peer's share.
func readShare(conn net.Conn) ([]byte, error) {
	b, err := expect(conn, kindShare, 1+shareLen)
	if err != nil {
		return nil, err
	}
	if b[0] != version {
		return nil, deny(conn, noSense, fmt.Errorf("%w: version %d, this program knows %d: update the older side", errMalformed, b[0], version))
	}
	return bytes.Clone(b[1:]), nil
}

// deny tells the peer why not, as far as it may know, and returns the error.
func deny(conn net.Conn, why refusal, err error) error {
	_, _ = conn.Write(frame(kindNo, byte(why)))
	return err
}
