package peerlink

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// LinkID names a link of a manager for ever: its slot and the slot's
// generation. An id never names another link after its own has closed. The
// zero value names none.
type LinkID struct{ slot, generation uint32 }

// String returns "slot.generation", which ParseLinkID reads.
func (id LinkID) String() string { return fmt.Sprintf("%d.%d", id.slot, id.generation) }

// IsZero reports whether the id names no link.
func (id LinkID) IsZero() bool { return id.generation == 0 }

// ParseLinkID reads what String wrote, and nothing else.
func ParseLinkID(s string) (LinkID, error) {
	a, b, ok := strings.Cut(s, ".")
	slot, err1 := strconv.ParseUint(a, 10, 32)
	gen, err2 := strconv.ParseUint(b, 10, 32)
	id := LinkID{uint32(slot), uint32(gen)}
	if !ok || err1 != nil || err2 != nil || gen == 0 || id.String() != s {
		return LinkID{}, fmt.Errorf("peerlink: %.40q is not a link id (want SLOT.GENERATION, as 0.1)", s)
	}
	return id, nil
}

// Direction says who began a link.
type Direction int

// The directions.
const (
	Inbound  Direction = iota // the peer called
	Outbound                  // this side called
)

// String returns "inbound" or "outbound".
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// maxAsked is how many channel requests of this side wait for answers on one
// link: what multiplex asks at once. A request that has a place here has
// been sent if the link breaks, one that has none has not.
const maxAsked = 256

// link is one live connection to one device.
type link struct {
	id            LinkID
	peer          identity.Peer
	carrier       string
	path          string
	local, remote net.Addr
	direction     Direction
	// deliberate links were asked for by themselves (NewLink, certain carriers,
	// an address, AddConn): the rule about two links at once leaves them alone.
	deliberate bool
	of         *negotiation // that this link was dialled for; nil: for none
	mux        *multiplex.Socket
	up         time.Time
	asking     chan struct{}

	// Guarded by ConnectionManager.mu:
	retired     bool      // gives no more channels: it is about to be closed
	suspect     bool      // did not answer in time after the network changed
	probing     bool      // a beacon of probe is under way
	opened      uint64    // channels that came about, of both sides
	opening     int       // requests of this side under way
	lastChannel time.Time // when the last channel came about
	idleSince   time.Time // when it was first seen without channels; zero: it has some
	// accepted are the channels that the peer opened, one for each URI, for
	// unique calls; looked through when there are acceptedSweep.
	accepted      map[string]*channel.Socket
	acceptedSweep int
}
