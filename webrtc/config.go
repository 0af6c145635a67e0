package webrtc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
)

// Signaller carries small messages between devices, encrypted and signed. Both
// methods may be called concurrently. The dht and switchboard packages have one.
type Signaller interface {
	// Send blocks until the message is on its way, not until it has arrived.
	Send(ctx context.Context, to identity.DeviceID, msg []byte) error
	// Receive returns the next message for this device and its sender. An
	// error that matches net.ErrClosed is its last.
	Receive(ctx context.Context) (from identity.Peer, msg []byte, err error)
}

// Server is a STUN or TURN server.
type Server struct {
	// URL is as RFC 7064 and 7065 say: "stun:host:port", "turn:host:port?transport=tcp".
	URL string
	// Username and Password are for TURN.
	Username, Password string
	// Credentials is asked for them before each call, if it is not nil. It must
	// return when its context ends, after 2 s at most; a server for which there
	// are none is left out of that call.
	Credentials func(context.Context) (username, password string, err error)
}

const (
	// defaultTimeout is Config.Timeout's.
	defaultTimeout = 30 * time.Second
	// defaultSilence is how long the far end may send nothing at all, not even an
	// answer to ICE's checks, until the stream is given up; an orderly end is known
	// at once. It is twice the longest break that mobile networks are known to make
	// often, and a third of pion's 30 s.
	defaultSilence = 10 * time.Second
	// sentMessage is the longest message that is sent, in bytes, unless the peer
	// takes less. It is as fast as any between pion's ends, and lets channels take
	// turns in pieces of one TLS record's size.
	sentMessage = 16 << 10
	// maxCalls bounds the calls that run at once, in each direction, and maxPerPeer
	// how many of them come from one device. Strangers have half as many, apart from
	// the members of Config.Trust.
	maxCalls   = 256
	maxPerPeer = 4
	// streamLabel names the stream's data channel.
	streamLabel = "peerlink"
	maxServers  = 8
)

// Config is what a Transport is made of. Identity is required, and either
// Signaller or the two callbacks; the zero value of every other field is its
// default.
type Config struct {
	// Identity is this device.
	Identity *identity.Identity
	// Trust is asked about the peer on both sides, before a call is answered
	// and when the device is proven. nil allows all.
	Trust *identity.Trust
	// Signaller carries offers and answers. The Transport reads it alone.
	Signaller Signaller
	// OnLocalDescription and OnLocalCandidate are for a signalling of one's own,
	// without a Signaller: they are given what is to be brought to the device,
	// whose side passes it to SetRemoteDescription and AddRemoteCandidate. Order
	// does not matter, loss only delays. Both may be called several times at
	// once; they must return, at the latest when their context ends, and may
	// call the Transport's methods. An error is told to the caller of Dial if
	// nothing else comes of the call.
	OnLocalDescription func(ctx context.Context, to identity.DeviceID, d Description) error
	OnLocalCandidate   func(ctx context.Context, to identity.DeviceID, c Candidate) error
	// Servers are asked for addresses and relays, at most 8. None: host
	// candidates alone.
	Servers []Server
	// Timeout bounds one call, from the offer to the proof, on either side: 30 s.
	Timeout time.Duration
	// Loopback takes loopback candidates and no others: for tests.
	Loopback bool
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger

	silence time.Duration                             // tests: in place of defaultSilence
	wrap    func(transport.UDPConn) transport.UDPConn // tests: in place of the sockets themselves
}

func (c Config) withDefaults() (Config, error) {
	if c.Identity == nil {
		return c, errors.New("webrtc: Config.Identity is missing")
	}
	switch own := c.OnLocalDescription != nil || c.OnLocalCandidate != nil; {
	case c.Signaller == nil && !own:
		return c, errors.New("webrtc: Config.Signaller is missing: offers need a way to the device (see the switchboard and dht packages, or OnLocalDescription)")
	case c.Signaller != nil && own:
		return c, errors.New("webrtc: Config has a Signaller and OnLocalDescription or OnLocalCandidate: want one way for signals")
	case own && (c.OnLocalDescription == nil || c.OnLocalCandidate == nil):
		return c, errors.New("webrtc: Config.OnLocalDescription and Config.OnLocalCandidate: want both")
	}
	if len(c.Servers) > maxServers {
		return c, fmt.Errorf("webrtc: Config.Servers: %d servers, at most %d are used", len(c.Servers), maxServers)
	}
	c.Servers = slices.Clone(c.Servers)
	c.Timeout = cmp.Or(max(c.Timeout, 0), defaultTimeout)
	c.silence = cmp.Or(max(c.silence, 0), defaultSilence)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c, nil
}

// keepalive is how often ICE checks a path that carries nothing else.
const keepalive = 500 * time.Millisecond

// engine returns pion's settings.
func (c Config) engine() (s pion.SettingEngine, n sockets, err error) {
	quiet := logging.NewDefaultLoggerFactory()
	quiet.Writer, quiet.DefaultLogLevel = io.Discard, logging.LogLevelDisabled
	s.LoggerFactory = quiet
	if n, err = newSockets(); err != nil {
		return s, n, err
	}
	n.wrap = c.wrap
	s.SetNet(n)
	s.DetachDataChannels()
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(c.Loopback)
	if c.Loopback {
		s.SetIPFilter(net.IP.IsLoopback)
	}
	s.SetNetworkTypes([]pion.NetworkType{pion.NetworkTypeUDP4, pion.NetworkTypeUDP6})
	s.SetICETimeouts(c.silence/2, c.silence/2, min(keepalive, c.silence/4))
	s.SetHostAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(0)
	s.SetPrflxAcceptanceMinWait(0)
	s.SetRelayAcceptanceMinWait(300 * time.Millisecond) // a direct path shows itself by then
	s.SetSCTPMaxReceiveBufferSize(1 << 20)
	s.SetSCTPMaxMessageSize(maxMessage)
	return s, n, nil
}
