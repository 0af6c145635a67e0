package ice

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/tlssock"
)

// ErrNoPath is matched by the error of a Dial that found no way to the device
// in time. The error's text lists every attempt: engine, candidate and cause.
var ErrNoPath = calls.ErrNoPath

// RefusedError says that the device was reached through the signaller and does
// not want this connection: its Peer is the device, its Reason what the device
// said, at most 200 bytes of a stranger's text. Its method Refused returns the
// reason too.
type RefusedError = calls.RefusedError

// refusedError says that one side's handshake has refused the other: another
// path would end there, too.
type refusedError struct {
	peer identity.DeviceID
	err  error
}

// Error says which device was called.
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

var errClosed = fmt.Errorf("ice: transport closed: %w", net.ErrClosed)
