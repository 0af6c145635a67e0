package peerlink

import (
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
// returns an error that tells what was tried. If that error has a method
// Refused() string, the device itself said no, and no other carrier is tried.
type Dialer interface {
	// Name is the carrier's, as "ice", "tcp", "unix", "shm", "webrtc".
	Name() string
	Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error)
}

// A Listener yields streams whose far end is proven. The manager closes it.
type Listener interface {
	Name() string
	// Accept waits for the next stream. A permanent error matches net.ErrClosed.
	Accept(ctx context.Context) (net.Conn, identity.Peer, error)
	Close() error
}

// A Negotiator is a Listener that can ask before it answers a caller at all.
// New gives it the manager's decision; an error refuses the caller.
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
	// proven. nil: all may that Trust allows.
	OnICERequest func(ctx context.Context, peer identity.Peer) error
	// OnChannelRequest decides on a channel that no Listen pattern claims; an
	// error declines, and its text reaches the caller. ctx ends with the link
	// or after DecisionTimeout. nil: declined.
	OnChannelRequest func(ctx context.Context, peer identity.Peer, uri string) error
	// OnConnectionReady gets each channel that OnChannelRequest accepted; it
	// owns the socket. nil: such a channel is closed at once.
	OnConnectionReady func(peer identity.Peer, sock *channel.Socket)
	// OnNewDevice is told of each device to which a first link comes up.
	OnNewDevice func(peer identity.Peer)
	// Capacity is how many links there may be: 4 096.
	Capacity int
	// HeadStart is how long a cheaper carrier is alone before the next one
	// starts: 50 ms, some round trips of a local network. Negative: none.
	HeadStart time.Duration
	// ConnectTimeout bounds a negotiation, whatever the callers' contexts say: 30 s.
	ConnectTimeout time.Duration
	// DecisionTimeout is how long OnICERequest and OnChannelRequest may take: 30 s.
	DecisionTimeout time.Duration
	// Link are the bounds and times of each link's multiplexed socket.
	Link multiplex.Config
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if c.Capacity == 0 {
		c.Capacity = 4096
	}
	def(&c.HeadStart, 50*time.Millisecond)
	def(&c.ConnectTimeout, 30*time.Second)
	def(&c.DecisionTimeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Identity == nil:
		return errors.New("peerlink: Config.Identity is missing")
	case c.Capacity < 0:
		return errors.New("peerlink: Config.Capacity is negative")
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
	// ChannelTimeout bounds the wait for the peer's answer to the channel
	// request, once there is a link: 10 s. The link and its other channels
	// outlive it.
	ChannelTimeout time.Duration
	// Carriers are the names of the dialers to use, in this order. nil: all,
	// in the order of Config.Dialers.
	Carriers []string
}
