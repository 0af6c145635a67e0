package webrtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
)

// Signaller carries small messages between devices, encrypted and signed. Both
// methods may be called concurrently. The dht and switchboard packages have one.
type Signaller interface {
	// Send blocks until the message is on its way, not until it has arrived.
	Send(ctx context.Context, to identity.DeviceID, msg []byte) error
	// Receive returns the next message for this device and who sent it. An
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

// Defaults of Config.
const (
	defaultTimeout = 30 * time.Second
	// defaultSilence is twice the longest break that mobile networks are known
	// to make often, and a third of pion's 30 s.
	defaultSilence = 10 * time.Second
	// defaultMessage is as fast as any between pion's ends, and lets channels
	// take turns in pieces of one TLS record's size.
	defaultMessage = 16 << 10
	defaultCalls   = 256
	defaultPerPeer = 4
	defaultLabel   = "peerlink"
	maxLabel       = 64
	maxServers     = 8
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
	// call the Transport's methods. An error is told to whoever calls Dial if
	// nothing else comes of the call.
	OnLocalDescription func(ctx context.Context, to identity.DeviceID, d Description) error
	OnLocalCandidate   func(ctx context.Context, to identity.DeviceID, c Candidate) error
	// Servers are asked for addresses and relays, at most 8. None: host
	// candidates alone.
	Servers []Server
	// Address is the address of the one interface to use. The zero value: all.
	Address netip.Addr
	// MinPort and MaxPort bound the UDP ports, both included. Both 0: any.
	MinPort, MaxPort uint16
	// ListenTCP is an address ("host:port") on which ICE takes TCP connections,
	// of which data channels run over as a second choice. Empty: UDP alone.
	ListenTCP string
	// Label names the stream's data channel; both sides need the same, at most
	// 64 bytes: "peerlink".
	Label string
	// MaxMessage is the longest message sent, in bytes, 1 024 to 65 536: 16 384.
	// Shorter if the peer takes less. Up to 65 536 are received.
	MaxMessage int
	// Timeout bounds one call, from the offer to the proof, on either side: 30 s.
	Timeout time.Duration
	// Silence is how long the far end may send nothing at all, not even an
	// answer to ICE's checks, until the stream is given up: 10 s. An orderly
	// end is known at once.
	Silence time.Duration
	// MaxCalls bounds the calls that run at once, in each direction: 256.
	MaxCalls int
	// MaxPerPeer bounds how many of them come from one device: 4.
	MaxPerPeer int
	// Loopback takes loopback candidates and no others: for tests.
	Loopback bool
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
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
	if c.Label == "" {
		c.Label = defaultLabel
	}
	if len(c.Label) > maxLabel {
		return c, fmt.Errorf("webrtc: Config.Label has %d bytes, at most %d are taken", len(c.Label), maxLabel)
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = defaultMessage
	}
	if c.MaxMessage < minRemoteMessage || c.MaxMessage > maxMessage {
		return c, fmt.Errorf("webrtc: Config.MaxMessage is %d, want %d to %d", c.MaxMessage, minRemoteMessage, maxMessage)
	}
	if len(c.Servers) > maxServers {
		return c, fmt.Errorf("webrtc: Config.Servers: %d servers, at most %d are used", len(c.Servers), maxServers)
	}
	c.Servers = slices.Clone(c.Servers)
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Silence <= 0 {
		c.Silence = defaultSilence
	}
	if c.MaxCalls <= 0 {
		c.MaxCalls = defaultCalls
	}
	if c.MaxPerPeer <= 0 {
		c.MaxPerPeer = defaultPerPeer
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// keepalive is how often ICE checks a path that carries nothing else.
const keepalive = 500 * time.Millisecond

// engine makes pion's API object. tcp is nil without ListenTCP.
func (c Config) engine(tcp ice.TCPMux) (*pion.API, error) {
	quiet := logging.NewDefaultLoggerFactory()
	quiet.Writer, quiet.DefaultLogLevel = io.Discard, logging.LogLevelDisabled
	s := pion.SettingEngine{LoggerFactory: quiet}
	n, err := newSockets()
	if err != nil {
		return nil, err
	}
	s.SetNet(n)
	s.DetachDataChannels()
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(c.Loopback)
	if c.Loopback || c.Address.IsValid() {
		s.SetIPFilter(c.mayUse)
	}
	if c.MinPort != 0 || c.MaxPort != 0 {
		if err := s.SetEphemeralUDPPortRange(c.MinPort, c.MaxPort); err != nil {
			return nil, fmt.Errorf("webrtc: Config.MinPort %d, MaxPort %d: %w", c.MinPort, c.MaxPort, err)
		}
	}
	types := []pion.NetworkType{pion.NetworkTypeUDP4, pion.NetworkTypeUDP6}
	if tcp != nil {
		types = append(types, pion.NetworkTypeTCP4, pion.NetworkTypeTCP6)
		s.SetICETCPMux(tcp)
	}
	s.SetNetworkTypes(types)
	s.SetICETimeouts(c.Silence/2, c.Silence/2, min(keepalive, c.Silence/4))
	s.SetHostAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(0)
	s.SetPrflxAcceptanceMinWait(0)
	s.SetRelayAcceptanceMinWait(300 * time.Millisecond) // a direct path shows itself by then
	s.SetSCTPMaxReceiveBufferSize(1 << 20)
	s.SetSCTPMaxMessageSize(maxMessage)
	return pion.NewAPI(pion.WithSettingEngine(s)), nil
}

func (c Config) mayUse(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	switch {
	case !ok || c.Loopback && !a.IsLoopback():
		return false
	case c.Address.IsValid():
		return a == c.Address.Unmap()
	}
	return true
}
