package multiplex

import (
	"errors"
	"fmt"

	"peerlink/channel"
)

// What callers branch on. See also ErrBadName and channel's errors.
var (
	// ErrDeclined is matched when the peer declined the channel; a
	// *DeclinedError has its code and reason.
	ErrDeclined = errors.New("channel declined by peer")
	// ErrNoListener is matched, besides ErrDeclined, when the peer declined
	// because no program takes channels of this name there now: the same request
	// may succeed as soon as one does.
	ErrNoListener = errors.New("no listener for the channel")
	// ErrProtocol is matched when the link ended because the peer broke the protocol.
	ErrProtocol = errors.New("protocol violated by peer")
	// ErrDead is matched when the link ended because a beacon went unanswered.
	ErrDead = errors.New("peer does not answer")
	// ErrTooMany is matched when no channel can be opened because all ids,
	// Config.MaxChannels, or the memory for unread bytes are in use.
	ErrTooMany = errors.New("too many channels on the link")
)

// DeclinedError says why the peer declined a channel. The reason is the peer's
// own text, at most 255 bytes; programs decide by the code, which is 0 if the
// peer told none.
type DeclinedError struct {
	Name, Reason string
	Code         channel.Code
}

// Error implements error. It says what the peer told: the code, the reason, which
// is quoted, or both.
func (e DeclinedError) Error() string {
	text := fmt.Sprintf("channel %q declined by peer", e.Name)
	if e.Code != 0 {
		text += fmt.Sprintf(" (%s)", e.Code)
	}
	if e.Reason != "" {
		text += fmt.Sprintf(": %q", e.Reason)
	}
	return text
}

// Is reports that the error matches ErrDeclined and, where that is the code,
// ErrNoListener.
func (e DeclinedError) Is(target error) bool {
	return target == ErrDeclined || target == ErrNoListener && e.Code == channel.CodeNoListener
}

// GoingAwayError is the cause of a link that the peer closed.
type GoingAwayError struct {
	Code   channel.Code
	Reason string // the peer's text, at most 255 bytes
}

// Error implements error. What the peer wrote is quoted.
func (e *GoingAwayError) Error() string {
	text := fmt.Sprintf("peer closed the link (%s)", e.Code)
	if len(e.Reason) > 0 {
		text += fmt.Sprintf(": %q", e.Reason)
	}
	return text
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}
