package peerlink

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// A Dialer makes an ordered, reliable stream to a device and proves that it
// ends there. Dial may be called concurrently, ends with ctx at the latest, and
// returns an error that tells what was tried. What ConnectDevice does about it
// depends on the error, or one that it wraps:
//
//   - With a method Refused() string, the device itself said no, and ErrRefused is
//     matched: no other carrier is tried. If the error also has a method
//     Temporary() bool that returns true, the device takes none now: ErrBusy is matched,
//     and that is a failure of the moment. If it has Unproven() bool that returns true, the far end had
//     not proven that it is the device: others are tried, as after a TLS alert of
//     the far end.
//   - After these two errors, one with a method Permanent() bool that returns
//     true, and identity.ErrNotTrusted, the carrier would fail again: others are
//     tried, and if all fail so there is no further round. Direct TCP without an
//     address of the device has not failed so, as Learn may tell it one meanwhile.
//   - Any other is a failure of the moment. If it has a method Elsewhere() bool that
//     returns true, the carrier reaches some devices and not this one: it is not
//     counted, unless all carriers are so.
//
// A stream may carry datagrams, too. If it has
//
//	SendDatagram(p []byte) error                          // or drops it; does not block, does not keep p
//	ReceiveDatagram(ctx context.Context) ([]byte, error)  // an error ends it
//	MaxDatagram() int                                     // as it is now; 0: none; without this method 1 100 bytes
//
// and the far end's stream does, channel.Socket.SendUnreliable uses them. They
// must be as well proven and as secret as the stream. docs/carriers.md has the other
// methods that a link uses where a stream has them, and their rules.
type Dialer interface {
	// Name is the carrier's, as "ice", "tcp", "unix", "shm", "webrtc".
	Name() string
	Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error)
}

// A Listener yields streams to proven devices. The manager closes it, once its
// links have ended: streams may need what Close gives back, as one socket below
// all of them.
type Listener interface {
	Name() string
	// Accept waits for the next stream. A permanent error matches net.ErrClosed.
	Accept(ctx context.Context) (net.Conn, identity.Peer, error)
	Close() error
}

// A Stopper is a Listener that can stop taking streams before it is closed. The
// manager calls StopAccepting as soon as Shutdown or Close begins, once; a Listener
// without it is asked on, and what it yields is told that this side is closing.
type Stopper interface {
	Listener
	// StopAccepting has Accept return net.ErrClosed from now on, and turns callers
	// away. Streams that Accept has yielded, and streams and calls of a Dialer of the
	// same value, live on. Close gives the rest back.
	StopAccepting()
}

// An AddrDialer is a Dialer that can also be told at which address a device
// listens (tlssock.Dialer is one). DialAddr is given an address and a port, no
// name, and obeys the same rules as Dial. ConnectAddr uses it.
type AddrDialer interface {
	Dialer
	DialAddr(ctx context.Context, addr string, peer identity.DeviceID) (net.Conn, identity.Peer, error)
}

// A Negotiator is a Listener that can ask before it answers a caller at all.
// New gives it the manager's decision; an error refuses the caller, for now only if
// it has a method Busy() bool that returns true: tell the caller so.
type Negotiator interface {
	Decide(func(ctx context.Context, peer identity.Peer) error)
}

// Config is what a ConnectionManager is made of. Identity is required; the
// zero value of every other field is its default.
type Config struct {
	// Identity is the device this manager acts as.
	Identity *identity.Identity
	// Trust is asked about every peer, in both directions, and again whenever
	// it changes: links to a device that it then refuses are closed. nil
	// allows all. The carriers' handshakes should ask the same store.
	Trust *identity.Trust
	// Dialers are the carriers to reach devices by, the cheapest first.
	Dialers []Dialer
	// Listeners are the carriers to be reached by.
	Listeners []Listener
	// OnICERequest decides whether a device may connect to this one; an error
	// refuses, and its text reaches the caller. It is asked before a
	// negotiation is answered or, on carriers without one, once the device is
	// proven. nil: all devices may that Trust allows.
	OnICERequest func(ctx context.Context, peer identity.Peer) error
	// OnChannelRequest decides on a channel that no Listen pattern claims; an
	// error declines, and its text reaches the caller. ctx ends with the link
	// or after DecisionTimeout. nil: declined.
	OnChannelRequest func(ctx context.Context, peer identity.Peer, uri string) error
	// OnConnectionReady gets each channel that OnChannelRequest accepted; it
	// owns the socket. nil: such a channel is reset at once, and the peer's error
	// matches ErrNotAccepted. If it panics, that channel is reset.
	//
	// Callbacks run on goroutines of their own, at most 256 at a time for one
	// member and 4 096 for all, half as many for one stranger and for all of those;
	// requests beyond that wait, DecisionTimeout at most. So a callback that
	// blocks stops its own device's requests in the end, and no other's.
	OnConnectionReady func(peer identity.Peer, sock *channel.Socket)
	// OnNewDevice is called for each device when a first link to it comes up.
	OnNewDevice func(peer identity.Peer)
	// Capacity is how many links there may be, counted from their making on: 4 096.
	// Where all are taken, the link of a device that Trust has no room of its own for
	// (a stranger; Trust.Member) gives way: one without channels to any other link, and
	// another one, while strangers have more than half, to those of members and of this
	// side's calls.
	Capacity int
	// PerDevice is how many of them may be with one device, so that one peer
	// cannot take all: 64. A stranger makes 4 at most; beyond that its own oldest link
	// without channels gives way.
	PerDevice int
	// HeadStart is how long a cheaper carrier is alone before the next one
	// starts: 50 ms, some round trips of a local network. Negative: none.
	HeadStart time.Duration
	// ConnectTimeout bounds one round of trying all carriers, also for callers
	// with more time: 30 s. A caller with a deadline waits for further
	// rounds, with pauses between them (see ConnectDevice).
	ConnectTimeout time.Duration
	// DecisionTimeout is how long OnICERequest and OnChannelRequest may take: 30 s.
	DecisionTimeout time.Duration
	// IdleTimeout is how long a link without channels is kept: 5 min. The next
	// ConnectDevice makes a new one. Negative: until it breaks.
	IdleTimeout time.Duration
	// ProbeTimeout is how long a link may take to answer after
	// ConnectivityChanged until another one is made: 2 s, three round trips of
	// the worst link we care for (600 ms). The link itself ends after
	// Link.BeaconTimeout.
	ProbeTimeout time.Duration
	// Network says whether changes of this machine's interfaces and addresses
	// call ConnectivityChanged. The zero value, WatchNetwork, does.
	Network NetworkWatch
	// Link are the bounds and times of each link's multiplexed socket. Unless
	// it has a Budget, all links of the manager share one of 256 MiB for
	// unread bytes: the full buffers of 16 links. The links that strangers have
	// made share half of it.
	Link multiplex.Config
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Callbacks are the callbacks of Config, for SetCallbacks.
type Callbacks struct {
	OnICERequest      func(ctx context.Context, peer identity.Peer) error
	OnChannelRequest  func(ctx context.Context, peer identity.Peer, uri string) error
	OnConnectionReady func(peer identity.Peer, sock *channel.Socket)
	OnNewDevice       func(peer identity.Peer)
}

// defaultBudget is how many unread bytes a manager holds.
const defaultBudget = 256 << 20

// NetworkWatch says whether a manager watches the machine's network.
type NetworkWatch int

// The choices. WatchNetwork is the zero value.
const (
	// WatchNetwork notices changes of interfaces and addresses: at once on
	// Linux, by looking every 5 s elsewhere.
	WatchNetwork NetworkWatch = iota
	// IgnoreNetwork leaves it to the program to call ConnectivityChanged.
	IgnoreNetwork
)

func (c Config) withDefaults() Config {
	c.Capacity = cmp.Or(c.Capacity, 4096)
	c.PerDevice = cmp.Or(c.PerDevice, 64)
	c.HeadStart = cmp.Or(c.HeadStart, 50*time.Millisecond)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 30*time.Second)
	c.DecisionTimeout = cmp.Or(c.DecisionTimeout, 30*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 5*time.Minute)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 2*time.Second)
	c.Link.Budget = cmp.Or(c.Link.Budget, multiplex.NewBudget(defaultBudget))
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) check() error {
	switch {
	case c.Identity == nil:
		return errors.New("peerlink: Config.Identity is missing: a manager acts as one device (see identity.Generate)")
	case c.Capacity < 0:
		return errors.New("peerlink: Config.Capacity is negative: want a number of links, or 0 for the default")
	case c.PerDevice < 0:
		return errors.New("peerlink: Config.PerDevice is negative: want a number of links, or 0 for the default")
	}
	return nil
}

// ConnectMode says which link ConnectDevice may use.
type ConnectMode int

// The modes. Reuse is the zero value.
const (
	// Reuse takes the link there is, or makes one.
	Reuse ConnectMode = iota
	// OnlyIfConnected never dials: without a link the error matches ErrNotConnected.
	OnlyIfConnected
	// NewLink always makes a link of its own.
	NewLink
)

// ConnectOptions vary one ConnectDevice call.
type ConnectOptions struct {
	// Mode says which link may be used.
	Mode ConnectMode
	// UniqueName says that there is one channel under this URI between the two
	// devices. A call then joins the call that is asking for it, takes the
	// channel that is open (made by such a call here, or by any call of the
	// peer), and otherwise asks. If both sides ask at once, both get the
	// channel that the device with the smaller DeviceID asked for. The channel
	// is shared by all callers that got it: one Close closes it for all.
	UniqueName bool
	// ChannelTimeout bounds the wait for the peer's answer to the channel
	// request, once there is a link: 10 s. The link and its other channels
	// outlive it.
	ChannelTimeout time.Duration
	// Carriers are the names of the dialers to use, in this order. nil: all,
	// in the order of Config.Dialers. Links of other carriers are not taken.
	Carriers []string
	// Link names the link to use, and no other: without it the error matches
	// ErrNotConnected. The zero value leaves the choice to Mode.
	Link LinkID
}
