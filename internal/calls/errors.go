package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"peerlink/identity"
)

// ErrNoPath is matched by the error of a Dial that found no way to the device in
// time. The error's text says how far the call came and what was tried.
var ErrNoPath = errors.New("no path to the device")

// RefusedError says that the device was reached and does not want this
// connection.
type RefusedError struct {
	// Peer is the device that refused.
	Peer identity.DeviceID
	// Code is what the refusal means to a program.
	Code Code
	// Reason is what it said, at most 200 bytes of UTF-8. It is a stranger's
	// text: quote it before showing it.
	Reason string
}

// Error quotes the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("device %s refused the connection: %q", e.Peer.Short(), e.Reason)
}

// Refused returns the reason. A connection manager that races carriers knows by
// this method that the device itself said no.
func (e *RefusedError) Refused() string { return e.Reason }

// Temporary reports that a later call may be taken: the device had no room.
func (e *RefusedError) Temporary() bool { return e.Code == CodeBusy }

// UnprovenRefusal is a no that nothing proves to be the device's: a stranger on
// the way of the signals could have said it.
type UnprovenRefusal struct {
	// Code is what it means to a program.
	Code Code
	// Reason is what was said, a stranger's text.
	Reason string
}

// Error quotes the reason.
func (e *UnprovenRefusal) Error() string { return fmt.Sprintf("the other end refused: %q", e.Reason) }

// Said returns the error that an unproven refusal is: an *UnprovenRefusal, which a
// connection manager takes for the device's no, though not for its last word, if
// the code is CodeUnwanted or CodeBusy.
func Said(code Code, reason string) error {
	no := &UnprovenRefusal{code, reason}
	if code == CodeUnwanted || code == CodeBusy {
		return unwanted{no}
	}
	return no
}

// unwanted is a refusal of this caller, for now or for good, not of its call.
type unwanted struct{ *UnprovenRefusal }

// Refused returns the reason.
func (u unwanted) Refused() string { return u.Reason }

// Unproven reports true.
func (unwanted) Unproven() bool { return true }

// Temporary reports that a later call may be taken: the device had no room.
func (u unwanted) Temporary() bool { return u.Code == CodeBusy }

// Unwrap returns the *UnprovenRefusal.
func (u unwanted) Unwrap() error { return u.UnprovenRefusal }

// no is what a caller is told.
type no struct {
	code   Code
	reason string
}

func (n no) Error() string { return n.reason }

// CodeOf is what an error of Visit.Admit means to the caller.
func CodeOf(err error) Code {
	if n, ok := errors.AsType[no](err); ok {
		return n.code
	}
	if b, ok := errors.AsType[interface {
		error
		Busy() bool
	}](err); ok && b.Busy() {
		return CodeBusy
	}
	return CodeUnwanted
}

// noPathError is what a call that ran out of time ends with.
type noPathError struct {
	carrier string
	peer    identity.DeviceID
	stage   string // how far it came
	through string // the network that was to carry the offer, if it was asked
	fared   string // how the offer did there; empty if that says nothing
	took    time.Duration
	tried   string
	cause   error
}

// Error says how far the call came, and what was tried.
func (e *noPathError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v %s: %s", e.carrier, ErrNoPath, e.peer.Short(), e.stage)
	if e.through != "" {
		fmt.Fprintf(&b, " through %s", e.through)
	}
	fmt.Fprintf(&b, " in %.1f s", e.took.Seconds())
	if e.fared != "" {
		fmt.Fprintf(&b, " (%s)", e.fared)
	}
	if !bare(e.cause) {
		fmt.Fprintf(&b, " (%v)", e.cause)
	}
	if e.tried != "" {
		fmt.Fprintf(&b, "; %s", e.tried)
	}
	return b.String()
}

// bare reports whether a time-out says no more than that it is one.
func bare(err error) bool { return err == context.DeadlineExceeded }

// Unwrap makes a time-out match both the context's error and the standard
// library's.
func (e *noPathError) Unwrap() []error {
	errs := []error{ErrNoPath, e.cause}
	if errors.Is(e.cause, context.DeadlineExceeded) {
		errs = append(errs, os.ErrDeadlineExceeded)
	}
	return errs
}

// givenUp reports whether a call ended because it was called off: then nothing is
// known about paths.
func givenUp(cause error) bool {
	return errors.Is(cause, context.Canceled) || errors.Is(cause, net.ErrClosed)
}

// verdict is why a call is over, whole: it needs no word about how far it came.
type verdict struct{ error }

// Unwrap returns the reason.
func (v verdict) Unwrap() error { return v.error }

var (
	errNoCall    = errors.New("no such call runs with this device")
	errWithdrawn = errors.New("the caller has withdrawn")
	errCrossed   = errors.New("the device called at the same time, and its call went first")
)
