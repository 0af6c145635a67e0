package localipc

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"peerlink/identity"
)

var (
	// ErrNotHere is matched when the device does not listen on this machine, or
	// not where this user may look. It has a method Elsewhere, by which others see
	// that this carrier was never a way.
	ErrNotHere error = notHere{}
	// ErrInUse is matched when another process listens for this device already.
	ErrInUse = errors.New("another process serves this device")
	// ErrRefused is matched when the far end said no before it was proven.
	ErrRefused = errors.New("refused by the process at the other end")
)

type notHere struct{}

func (notHere) Error() string { return "the device does not run on this machine" }

// Elsewhere reports true: nothing went wrong, the device is somewhere else.
func (notHere) Elsewhere() bool { return true }

// Bounds of a Config.
const (
	maxServices   = 8
	maxServiceLen = 16

	defaultHandshakeTimeout = 5 * time.Second // 0.5 ms of work on each side, on a busy machine
)

// streamService is the service that every device has: the socket itself.
const streamService = "stream"

// Config has this end's device, where it looks and which devices it lets in. It may be
// copied and used concurrently. Identity is required; the zero value of every
// other field is its default.
type Config struct {
	// Identity is this end's device.
	Identity *identity.Identity
	// Trust is asked about the peer inside each handshake, on either side. nil
	// lets all in.
	Trust *identity.Trust
	// Dir is the runtime folder, made with mode 0700 if it is missing. It must be
	// this user's, and closed to others. "":
	// $XDG_RUNTIME_DIR/peerlink, or else peerlink-UID in the folder for temporary
	// files, or peerlink/run in the user's cache folder if another user has that one.
	Dir string
	// Services are names of up to 16 letters of what is offered besides plain
	// streams, to be taken with AcceptUnix. None: nothing.
	Services []string
	// HandshakeTimeout bounds connecting and proving: 5 s. Negative: only the
	// context does (a Listener then takes 5 s all the same).
	HandshakeTimeout time.Duration
	// Logger hears of handshakes that a Listener saw fail, at level Debug and at
	// most 10 times a second. nil is silent.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Identity == nil:
		return c, errors.New("Config.Identity is missing: a carrier acts as one device")
	case len(c.Services) > maxServices:
		return c, fmt.Errorf("%d services, at most %d are taken", len(c.Services), maxServices)
	}
	for _, s := range c.Services {
		if err := checkService(s); err != nil {
			return c, err
		}
	}
	if c.Dir == "" {
		c.Dir = defaultDir()
	}
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, defaultHandshakeTimeout)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c, nil
}

func checkService(s string) error {
	if s == "" || s == streamService || len(s) > maxServiceLen {
		return fmt.Errorf("service %.40q: want 1 to %d letters, other than %q", s, maxServiceLen, streamService)
	}
	for _, r := range s {
		if r < 'a' || r > 'z' {
			return fmt.Errorf("service %q: want lower-case letters only", s)
		}
	}
	return nil
}
