package webrtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"peerlink/identity"
)

// ErrNoPath is matched by the error of a Dial that found no way to the device
// in time. The error's text says how far it came and what was tried.
var ErrNoPath = errors.New("no path to the device")

// RefusedError says that the device was reached and does not want this
// connection.
type RefusedError struct {
	// Peer is the device that refused.
	Peer identity.DeviceID
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

// saidNo is a refusal at the other end of a channel whose device is not proven:
// whoever carries the signals could say it.
type saidNo struct{ reason string }

// Error quotes the reason.
func (e *saidNo) Error() string { return fmt.Sprintf("the other end refused: %q", e.reason) }

// noPathError is what a call that ran out of time ends with.
type noPathError struct {
	peer        identity.DeviceID
	stage       string
	state       string
	sent, heard []string // candidates
	tries       int
	last        error // of the signaller
	cause       error // of the context
}

// Error tells what was tried.
func (e *noPathError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "webrtc: %v %s: %s (%v); offers sent: %d", ErrNoPath, e.peer.Short(), e.stage, e.cause, e.tries)
	if e.last != nil {
		fmt.Fprintf(&b, "; the signaller said: %v", e.last)
	}
	fmt.Fprintf(&b, "; connection %s; own candidates: %s; the device's: %s", e.state, list(e.sent), list(e.heard))
	return b.String()
}

// Unwrap makes a time-out match both the context's error and the standard
// library's.
func (e *noPathError) Unwrap() []error {
	errs := []error{ErrNoPath, e.cause}
	if errors.Is(e.cause, context.DeadlineExceeded) {
		errs = append(errs, os.ErrDeadlineExceeded)
	}
	return errs
}

// list shows the addresses of candidates.
func list(cs []string) string {
	if len(cs) == 0 {
		return "none"
	}
	var out []string
	for _, c := range cs {
		if f := strings.Fields(c); len(f) >= 8 {
			out = append(out, fmt.Sprintf("%s %s %s", f[2], f[7], net.JoinHostPort(f[4], f[5])))
		}
	}
	return strings.Join(out, ", ")
}

// errLost is why a stream cannot be written to whose connection is gone.
var errLost = errors.New("the connection to the peer has ended")

var errClosed = fmt.Errorf("webrtc: transport closed: %w", net.ErrClosed)
