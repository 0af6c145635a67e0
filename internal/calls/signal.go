package calls

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// ID names one call. The caller makes it at random, so a peer that knows an ID
// was told it.
type ID [16]byte

// NewID returns an ID that cannot be guessed.
func NewID() (id ID) {
	rand.Read(id[:])
	return id
}

// Kind says what a signal is for. The wire of a carrier numbers the kinds in this
// order, from a number of its own on.
type Kind uint8

// The kinds of signals. Signals of other kinds are ignored.
const (
	// Offer is how a call begins.
	Offer Kind = iota
	// Answer is what the callee says to an Offer that it takes.
	Answer
	// Refusal is the callee's no, or the caller's word that it has given up.
	Refusal
	// More has candidates that its sender found after its Offer or Answer.
	More
)

// String names the kind.
func (k Kind) String() string {
	if names := []string{"offer", "answer", "refusal", "more candidates"}; int(k) < len(names) {
		return names[k]
	}
	return "unknown kind"
}

// Head is what each signal says.
type Head struct {
	Kind Kind
	ID   ID
	// Code and Reason are a Refusal's. The reason is bounded by the carrier's codec,
	// and a stranger's text for people.
	Code   Code
	Reason string
}

// Code says what a refusal means to a program. The zero value tells no more than
// the reason.
type Code uint32

// The codes that calls know (docs/protocol.md, "Codes"); others mean nothing here.
const (
	CodeWithdrawn Code = 2  // the caller gives the call up
	CodeBusy      Code = 3  // there is no room now
	CodeInternal  Code = 4  // the deciding program failed
	CodeUnwanted  Code = 6  // the device does not want the caller
	CodeNotProven Code = 12 // the caller's proof does not fit the connection
)

// The bounds of every signal, in bytes.
const (
	// MaxSignal is the length of a whole signal, and of a key MaxKey.
	MaxSignal = 8 << 10
	MaxKey    = 32
	// MaxReason is the length of a Refusal's reason.
	MaxReason = 200
)

// ReadHead reads a signal as all carriers write it: a msgpack map. Its "k" is
// the kind, counted from the carrier's first one, "i" the id, and "r" and "e" are the
// reason and code of a refusal. field reads, or skips, the value of any other key.
func ReadHead(b []byte, first uint8, field func(r *packed.Reader, key string) error) (h Head, err error) {
	if len(b) > MaxSignal {
		return h, fmt.Errorf("a signal of %d bytes, at most %d are taken", len(b), MaxSignal)
	}
	r := packed.NewReader(b)
	seen, err := r.Keyed(MaxKey, func(key string) (err error) {
		switch key {
		case "k":
			var k uint64
			k, err = r.Uint(255)
			h.Kind = Kind(uint8(k) - first)
		case "i":
			err = r.Exactly(h.ID[:])
		case "r":
			h.Reason, err = r.String(MaxReason)
		case "e":
			var code uint64
			code, err = r.Uint(math.MaxUint32)
			h.Code = Code(code)
		default:
			err = field(r, key)
		}
		return err
	})
	switch {
	case err != nil:
		return h, fmt.Errorf("signal: %w", err)
	case !seen["k"] || !seen["i"]:
		return h, errors.New("a signal without a kind or an id")
	case r.Len() > 0:
		return h, fmt.Errorf("%d bytes after the signal", r.Len())
	}
	return h, nil
}

// Signal is a carrier's signal in memory.
type Signal interface {
	// Head returns what the machine reads of the signal.
	Head() Head
}

// Side is what a carrier has of a call, on either side.
type Side[S Signal] interface {
	// More takes the candidates of a signal of the peer: of kind More, or an offer
	// or answer that came once more. It must not block. It returns false to have
	// the signal counted as ignored.
	More(S) bool
}

// Carrier is the part of a call that is not the same for all. Its methods are
// called concurrently.
type Carrier[S Signal] interface {
	// Decode reads a peer's signal. It must not block.
	Decode(b []byte) (S, error)
	// Refusal makes a signal of that kind.
	Refusal(Head) S
	// Post brings a signal on its way. It blocks until that is done, or ctx ends.
	Post(ctx context.Context, to identity.DeviceID, s S) error
	// Call makes the stream of a call to a device: it makes the offer and has it
	// sent by Call.Offer, waits on Call.Answers, and returns once the stream is
	// proven. ctx ends with the time for the call, when the device has refused,
	// and with the Board; the error is then that of Call.Failure.
	Call(ctx context.Context, c *Call[S]) (net.Conn, identity.Peer, error)
	// Answer makes the stream of a device's call: it sends an answer, again on each
	// Visit.Again, and returns once the stream is proven.
	Answer(ctx context.Context, v *Visit[S], offer S) (net.Conn, identity.Peer, error)
}

// seenKept is how many ids are remembered. A repeated offer that is older was
// refused by the signaller for its age.
const seenKept = 4096

const (
	// asideMost is how many signals are kept aside; one sender has an eighth.
	asideMost = 64
	asideLife = 10 * time.Second
)

// aside keeps signals that have overtaken the offer that they belong to, as they
// may come over another way. The zero value is empty.
type aside[S Signal] struct{ kept []early[S] } // oldest first

type early[S Signal] struct {
	from identity.DeviceID
	s    S
	at   time.Time
}

// put keeps a signal, in place of the oldest one if there is no room; what is
// more than its sender's share is dropped.
func (a *aside[S]) put(from identity.DeviceID, s S, now time.Time) {
	a.kept = slices.DeleteFunc(a.kept, func(e early[S]) bool { return now.Sub(e.at) >= asideLife })
	share := 0
	for _, e := range a.kept {
		if e.from == from {
			share++
		}
	}
	if share >= asideMost/8 {
		return
	}
	if len(a.kept) == asideMost {
		a.kept = slices.Delete(a.kept, 0, 1)
	}
	a.kept = append(a.kept, early[S]{from, s, now})
}

// take removes and returns what one sender has said of a call.
func (a *aside[S]) take(from identity.DeviceID, id ID, now time.Time) []S {
	var out []S
	a.kept = slices.DeleteFunc(a.kept, func(e early[S]) bool {
		old, fits := now.Sub(e.at) >= asideLife, e.from == from && e.s.Head().ID == id
		if fits && !old {
			out = append(out, e.s)
		}
		return fits || old
	})
	return out
}
