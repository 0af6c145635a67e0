package peerlink

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// Errors that callers branch on. After a time-out they match
// os.ErrDeadlineExceeded or the context's cause.
var (
	// ErrNotStarted is matched by what needs Start before it.
	ErrNotStarted = errors.New("not started")
	// ErrStarted is matched by what has to come before Start, after it: a second
	// Start, and SetCallbacks.
	ErrStarted = errors.New("started already")
	// ErrClaimed is matched when a pattern of Listen has a listener already.
	ErrClaimed = errors.New("somebody listens on it already")
	// ErrSelf is matched when this device is to connect to itself: a link to oneself
	// is not made.
	ErrSelf = errors.New("that is this device's own id; a link to oneself is not made")
	// ErrClosed is matched by what comes after Close or Shutdown, or is ended by it.
	// It matches net.ErrClosed.
	ErrClosed = fmt.Errorf("closed: %w", net.ErrClosed)
	// ErrDeclined is matched when the peer declined the channel; a
	// *multiplex.DeclinedError has its code and reason.
	ErrDeclined = multiplex.ErrDeclined
	// ErrNoListener is matched, like ErrDeclined, when no program on the device
	// takes channels of this URI now: neither a Listen pattern fits nor is
	// there an OnChannelRequest. ConnectDevice returns it at once; the same call
	// may succeed as soon as a program there listens.
	ErrNoListener = multiplex.ErrNoListener
	// ErrNotAccepted is matched by the errors of a channel that was open, but that
	// no program on the device took before its listener was closed: nobody has
	// read a byte of it. A *channel.ResetError has the code.
	ErrNotAccepted = channel.ErrNotAccepted
	// ErrRefused is matched when the peer refused to connect at all.
	ErrRefused = errors.New("refused by the device")
	// ErrBusy is matched when the peer says that it has no room for another link, or is
	// shutting down: the same call may succeed later. ConnectDevice with a deadline tries
	// again until then. A device that shuts down takes no connections of direct TCP, so
	// callers over that are refused by its system, as if it were gone.
	ErrBusy = errors.New("the device takes no link now")
	// ErrNotConnected is matched when there is no link and none may be made.
	ErrNotConnected = errors.New("not connected")
	// ErrCapacity is matched when Config.Capacity links exist already.
	ErrCapacity = errors.New("no room for another link")
	// ErrTooMany is matched when a link has no room for another channel.
	ErrTooMany = multiplex.ErrTooMany
	// ErrBadName is matched when a URI is empty, longer than 255 bytes or not plain text.
	ErrBadName = multiplex.ErrBadName
	// ErrWouldBlock is matched when a TrySend or SendUnreliable does not fit in now.
	ErrWouldBlock = channel.ErrWouldBlock
	// ErrTooLong is matched when a TrySend or SendUnreliable never fits in.
	ErrTooLong = channel.ErrTooLong
	// ErrDead is matched when a link ended because its peer did not answer any more.
	ErrDead = multiplex.ErrDead
	// ErrProtocol is matched when a link ended because its peer broke the protocol.
	ErrProtocol = multiplex.ErrProtocol
)

// Attempt is one carrier's try to reach a device.
type Attempt struct {
	Carrier string
	Took    time.Duration
	Err     error // nil while it is under way
}

// ConnectError tells why a device could not be reached, by every way tried.
type ConnectError struct {
	Peer identity.DeviceID
	// Attempts are the attempts of the last two rounds.
	Attempts []Attempt
	// Rounds is how often all carriers were tried.
	Rounds int
	// Err is why the caller stopped waiting or the manager stopped trying;
	// nil if the last attempt's failure ended it.
	Err error
}

// elsewhere reports whether a carrier failed only because it reaches some
// devices, on this machine for example, and not this one: its error has a method
// Elsewhere that returns true.
func elsewhere(a Attempt) bool {
	said, ok := errors.AsType[interface {
		error
		Elsewhere() bool
	}](a.Err)
	return ok && said.Elsewhere()
}

// telling returns the attempts that say something. Carriers that were never a way
// to the device are left out, unless all were so.
func (e *ConnectError) telling() []Attempt {
	if !slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return !elsewhere(a) }) {
		return e.Attempts
	}
	return slices.DeleteFunc(slices.Clone(e.Attempts), elsewhere)
}

// Error implements error: “could not reach device 0a1b2c3d: tcp: …; ice: …”.
// Carriers of this machine are named only if there was no other.
func (e *ConnectError) Error() string {
	var parts []string
	for _, a := range e.telling() {
		if a.Err == nil {
			parts = append(parts, fmt.Sprintf("%s: still trying after %v", a.Carrier, a.Took.Round(time.Millisecond)))
		} else {
			parts = append(parts, a.Carrier+": "+e.said(a))
		}
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if len(parts) == 0 {
		parts = []string{"no carrier to try"}
	}
	often := ""
	if e.Rounds > 1 {
		often = fmt.Sprintf(" in %d rounds", e.Rounds)
	}
	return fmt.Sprintf("could not reach device %s%s: %s", e.Peer.Short(), often, strings.Join(parts, "; "))
}

// said is a carrier's error without what stands before it already: the carrier
// and the device, as in “tcp to 0a1b2c3d: ”.
func (e *ConnectError) said(a Attempt) string {
	text := a.Err.Error()
	const longest = 40 // bytes of such an opening: a peer's own words come later
	if head, rest, ok := strings.Cut(text, e.Peer.Short()+": "); ok && len(head) <= longest {
		return rest
	}
	return strings.TrimPrefix(text, a.Carrier+": ")
}

// Unwrap returns the causes of all attempts and Err.
func (e *ConnectError) Unwrap() []error {
	var errs []error
	for _, a := range e.Attempts {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// ShutdownError is the error of Shutdown if links ended before their channels did,
// and of every call that closes links if a link ended before its peer had confirmed
// all that was sent: that may be lost. It matches what each link's error does: the
// cause of Shutdown's context, os.ErrDeadlineExceeded after
// multiplex.Config.CloseTimeout, or why the link was lost.
type ShutdownError struct{ Cut []CutLink }

// CutLink is a link that ended too early.
type CutLink struct {
	ID      LinkID
	Peer    identity.Peer
	Carrier string
	Err     error // why: what the peer has not confirmed, or how many channels were cut
}

// maxCutsTold is how many links the text of a ShutdownError names.
const maxCutsTold = 8

// Error implements error: “2 links were cut: device 0a1b2c3d over tcp: …; …”. Eight
// links are named, and further ones counted.
func (e *ShutdownError) Error() string {
	var parts []string
	for _, c := range e.Cut[:min(len(e.Cut), maxCutsTold)] {
		parts = append(parts, fmt.Sprintf("device %s over %s: %v", c.Peer.Device.Short(), c.Carrier, c.Err))
	}
	if more := len(e.Cut) - maxCutsTold; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	links := "links were"
	if len(e.Cut) == 1 {
		links = "link was"
	}
	return fmt.Sprintf("peerlink: %d %s cut: %s", len(e.Cut), links, strings.Join(parts, "; "))
}

// Unwrap returns the errors of all links.
func (e *ShutdownError) Unwrap() []error {
	var errs []error
	for _, c := range e.Cut {
		errs = append(errs, c.Err)
	}
	return errs
}

// note adds a link that ended with err, once; nil is none.
func (e *ShutdownError) note(l *link, err error) {
	if err != nil && !slices.ContainsFunc(e.Cut, func(c CutLink) bool { return c.ID == l.id }) {
		e.Cut = append(e.Cut, CutLink{l.id, l.peer, l.carrier, err})
	}
}

// orNil returns the error, or nil if no link was cut.
func (e *ShutdownError) orNil() error {
	if len(e.Cut) == 0 {
		return nil
	}
	return e
}

// refusal is the error of a device that said no; it matches ErrRefused or ErrBusy.
type refusal struct {
	error
	is error
}

// Is reports that the error matches what the no means.
func (r refusal) Is(target error) bool { return target == r.is }

// Unwrap returns the Dialer's error.
func (r refusal) Unwrap() error { return r.error }
