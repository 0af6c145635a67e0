package channel

import (
	"errors"
	"fmt"
	"os"

	"peerlink/internal/stream"
)

// ErrWouldBlock is returned by TrySend and SendUnreliable when the message
// does not fit in now; nothing of it has been sent.
var ErrWouldBlock = stream.ErrWouldBlock

// ErrTooLong is returned by SendUnreliable when the message is longer than a
// datagram of the link may be, and by TrySend and WaitSend when it is longer
// than MaxSend; nothing of it has been sent.
var ErrTooLong = stream.ErrTooLong

// errNil is the error of the methods of a nil Socket, which a failed call returned
// and a program used all the same.
var errNil = fmt.Errorf("channel: nil Socket: %w", os.ErrInvalid)

// Code says why a channel was reset or declined, or why a link ended. Programs
// decide by it; the text beside it is for people. Codes below 256 are the
// protocol's own.
type Code uint32

// The protocol's codes (docs/protocol.md, "Codes"). An application uses CodeUser
// and above. The zero value in a decline says that its sender told no more than
// the text.
const (
	CodeClosed      Code = 0   // the sender has closed the channel and reads no more
	CodeFlowControl Code = 1   // the receiver of the reset sent past its credit
	CodeCancelled   Code = 2   // the opener gave up before the answer
	CodeResource    Code = 3   // the sender has no memory for more
	CodeInternal    Code = 4   // the sender's handler failed
	CodeProtocol    Code = 5   // the receiver of the message broke the protocol
	CodeRefused     Code = 6   // the device does not want the link
	CodeNotNeeded   Code = 7   // the link is given up before it was used
	CodeCrossed     Code = 8   // both sides connected at once, and the other link is kept
	CodeIdle        Code = 9   // the link had no channels for a while
	CodeClosing     Code = 10  // of a decline: the link is about to end, ask on another
	CodeNoListener  Code = 11  // of a decline: no program takes channels of this name now
	CodeNotProven   Code = 12  // of a refused proof: it does not fit the connection
	CodeNotAccepted Code = 13  // of a reset: no program has taken the channel, so nobody has read a byte
	CodeUser        Code = 256 // first code that applications may give a meaning
)

// words are the protocol's for its codes.
var words = [...]string{
	"closed", "flow control violated", "cancelled", "out of resources", "internal error", "protocol violated",
	"refused", "not needed", "crossed", "idle", "closing", "no listener", "not proven", "not accepted",
}

// String returns the protocol's word for a code, or its number.
func (c Code) String() string {
	if int64(c) < int64(len(words)) {
		return words[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// ErrNotAccepted is matched by the *ResetError of a channel that the peer's program
// never took, as its listener was closed: nobody has read what was written, though
// Write and CloseWrite may have succeeded.
var ErrNotAccepted = errors.New("not accepted by a program")

// ResetError is the cause of a direction that was cut off rather than ended.
type ResetError struct {
	Code   Code
	Remote bool // the peer reset the channel; else this side did
}

// Error implements error.
func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("reset by peer (%s)", e.Code)
	}
	return fmt.Sprintf("reset here (%s)", e.Code)
}

// Is reports that a remote reset of CodeNotAccepted matches ErrNotAccepted.
func (e *ResetError) Is(target error) bool {
	return target == ErrNotAccepted && e.Remote && e.Code == CodeNotAccepted
}

// OpError is the error of every Socket method but for a bare io.EOF. It is a
// net.Error; Err is the cause and is found by errors.Is and errors.As:
// net.ErrClosed, os.ErrDeadlineExceeded, ErrWouldBlock, ErrTooLong, a *ResetError or
// what ended the link.
type OpError struct {
	Op  string // "read", "write", "send", "close"
	URI string // the channel's
	Err error
}

// Error implements error. The URI, which a peer may have chosen, is quoted.
func (e *OpError) Error() string { return fmt.Sprintf("channel %q: %s: %v", e.URI, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Timeout reports whether a deadline passed. The channel remains usable then.
func (e *OpError) Timeout() bool { return errors.Is(e.Err, os.ErrDeadlineExceeded) }

// Temporary is the same as Timeout; net.Error asks for it.
func (e *OpError) Temporary() bool { return e.Timeout() }
