package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"peerlink/identity"
	"peerlink/tlssock"
)

// ErrNoPath is matched by the error of a Dial that found no way to the device
// in time. The error's text lists every attempt: engine, candidate and cause.
var ErrNoPath = errors.New("no path to the device")

// RefusedError says that the device was reached through the signaller and does
// not want this connection.
type RefusedError struct {
	// Peer is the device that refused.
	Peer identity.DeviceID
	// Reason is what it said, at most 200 bytes of UTF-8. It is a stranger's
	// text: quote it before showing it.
	Reason string
}

// Error quotes the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("ice: device %s refused the connection: %q", e.Peer.Short(), e.Reason)
}

// Refused returns the reason. A connection manager that races carriers knows by
// this method that the device itself said no.
func (e *RefusedError) Refused() string { return e.Reason }

// refusedError says that one side's handshake has refused the other: another
// path would end there, too.
type refusedError struct {
	peer identity.DeviceID
	err  error
}

// Error says who was called.
func (e *refusedError) Error() string { return fmt.Sprintf("ice: dial %s: %v", e.peer.Short(), e.err) }

// Unwrap returns the handshake's error.
func (e *refusedError) Unwrap() error { return e.err }

// Permanent reports that a further call would fail alike.
func (e *refusedError) Permanent() bool { return true }

// refusedInTLS reports whether the far end has ended a handshake by an alert,
// over TCP or QUIC.
func refusedInTLS(err error) bool {
	var q *quic.TransportError
	return errors.Is(err, tlssock.ErrRefused) || errors.As(err, &q) && q.Remote && q.ErrorCode.IsCryptoError()
}

// attempt is one thing that was tried and did not lead to a stream.
type attempt struct {
	engine string
	target string
	cause  error // nil: it led to a path
	times  int
	at     time.Time
}

// noPathError is what a negotiation that ran out of time ends with.
type noPathError struct {
	peer     identity.DeviceID
	stage    string // how far it came
	through  string // the network that was to carry the offer, if anybody was asked
	fared    string // how the offer did there; empty if that says nothing
	took     time.Duration
	attempts []attempt
	cause    error // of the context
}

// Error lists what was tried.
func (e *noPathError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ice: %v %s: %s", ErrNoPath, e.peer.Short(), e.stage)
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
	sep := "; tried "
	for _, a := range e.attempts {
		if a.cause == nil {
			continue
		}
		fmt.Fprintf(&b, "%s%s %s (%d×): %v", sep, a.engine, a.target, a.times, a.cause)
		sep = "; "
	}
	return b.String()
}

// bare reports whether a time-out says nothing beside being one.
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

var errClosed = fmt.Errorf("ice: transport closed: %w", net.ErrClosed)
