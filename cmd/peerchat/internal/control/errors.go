package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/strictjson"
)

// Causes that a command can tell apart.
var (
	// ErrNoDaemon is matched when no daemon runs for the account.
	ErrNoDaemon = errors.New("no daemon runs for this account")
	// ErrNotFound is matched when what was asked about is not there: a contact,
	// a forward, a channel that waited too long to be taken.
	ErrNotFound = errors.New("not found")
)

// EndedError is the error of a command whose daemon has ended meanwhile. It
// matches io.ErrUnexpectedEOF: whatever came until then is not whole.
type EndedError struct {
	// Told says that the daemon said so, because somebody ended it; otherwise it
	// was killed, or has crashed.
	Told bool
}

// Error says what has happened, and what to do.
func (e *EndedError) Error() string {
	if e.Told {
		return "the daemon has ended, as it was told to (by peerchat stop, or a signal): run the command again, which starts one where none runs"
	}
	return "the daemon has ended without a word, as if killed: daemon.log in the account's folder may say why; run the command again, which starts one where none runs"
}

// Unwrap returns io.ErrUnexpectedEOF.
func (e *EndedError) Unwrap() error { return io.ErrUnexpectedEOF }

// codeEnded is the code of an EndedError with Told set.
const codeEnded = "ended"

// causes are the errors that keep their meaning on the way to a command: an error
// gets the code of the first row whose err it matches, and matches there err and
// what follows from it.
var causes = []struct {
	code    string
	err     error
	implied []error
}{
	{"no-listener", peerlink.ErrNoListener, []error{peerlink.ErrDeclined}},
	{"declined", peerlink.ErrDeclined, nil},
	{"refused", peerlink.ErrRefused, nil},
	{"busy", peerlink.ErrBusy, nil},
	{"not-connected", peerlink.ErrNotConnected, nil},
	{"capacity", peerlink.ErrCapacity, nil},
	{"claimed", peerlink.ErrClaimed, nil},
	{"self", peerlink.ErrSelf, nil},
	{"revoked", identity.ErrRevoked, []error{identity.ErrBanned, identity.ErrNotTrusted}},
	{"banned", identity.ErrBanned, []error{identity.ErrNotTrusted}},
	{"moved", identity.ErrMoved, []error{identity.ErrNotTrusted}},
	{"not-trusted", identity.ErrNotTrusted, nil},
	{"not-found", ErrNotFound, nil},
	{"deadline", os.ErrDeadlineExceeded, nil},
	{"deadline", context.DeadlineExceeded, nil},
	{"closed", net.ErrClosed, nil},
}

// Error is an error of the daemon's, as a command sees it. It matches what it
// matched there: the errors of package peerlink, ErrNotFound, os.ErrDeadlineExceeded,
// net.ErrClosed.
type Error struct {
	Code string `json:"code,omitempty"`
	Text string `json:"text"`
}

// Error returns the daemon's words.
func (e *Error) Error() string { return e.Text }

// Is tells whether the error matched target at the daemon's.
func (e *Error) Is(target error) bool {
	for _, c := range causes {
		if c.code == e.Code && (c.err == target || slices.Contains(c.implied, target)) {
			return true
		}
	}
	return false
}

func asError(err error) *Error {
	if _, ok := errors.AsType[*EndedError](err); ok {
		return &Error{codeEnded, err.Error()}
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return &Error{c.code, err.Error()}
		}
	}
	return &Error{Text: err.Error()}
}

// strict decodes one JSON value and takes nothing unknown and nothing after it.
func strict(b []byte, v any) error { return strictjson.Decode(b, maxAnswer, v) }
