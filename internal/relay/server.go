package relay

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"
)

const (
	maxAllocations = 512
	// realm is told to every client; it names the kind of service only.
	realm = "peerlink"
	// bindingLife is how long a channel lives without being refreshed (RFC 8656).
	bindingLife = 10 * time.Minute
)

// Config says what a Server does. It is copied by Listen.
type Config struct {
	// Listen is the HOST:PORT for UDP and TCP; without a host, all of this
	// machine's. Port 0 picks one, the same for both. Required.
	Listen string
	// Key is the node's. Required.
	Key ed25519.PrivateKey
	// Relay allows TURN. Without it the server only reflects.
	Relay bool
	// Address is the IPv4 address under which devices reach relayed ports. The
	// zero value means the host of Listen, or else that of the interface with
	// the default route.
	Address netip.Addr
	// Private lets devices be relayed to loopback and private addresses, for
	// networks that have no others.
	Private bool
	// Logger hears of what no caller is told. Nil is silent.
	Logger *slog.Logger

	most int // tests: the allocations of all devices; 0: maxAllocations
}

// Server is a running STUN and TURN server. Make one with Listen. Its methods
// may be called concurrently.
type Server struct {
	cfg    Config
	log    *slog.Logger
	secret [32]byte
	addr   netip.AddrPort
	udp    net.PacketConn
	door   *door
	turn   *turn.Server
	used   addresses
	ports  ports // without Config.Relay of no places: the server only reflects
	once   sync.Once
}

// Listen opens the ports and serves until Close. It fails when a port is taken
// or no address to relay under is found.
func Listen(cfg Config) (*Server, error) {
	cfg.most = cmp.Or(cfg.most, maxAllocations)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("relay: Config.Key is missing")
	}
	s := &Server{cfg: cfg, log: cfg.Logger}
	_, _ = rand.Read(s.secret[:]) // never fails
	if err := s.listen(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("relay: listen on %s: %w", cfg.Listen, err)
	}
	return s, nil
}

// listen opens the sockets, the same port on each.
func (s *Server) listen() error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", s.cfg.Listen)
	if err != nil {
		return err
	}
	s.door, err = newDoor(s, listener)
	if err != nil {
		_ = listener.Close()
		return err
	}
	at := listener.Addr().(*net.TCPAddr)
	s.addr = netip.AddrPortFrom(at.AddrPort().Addr().Unmap(), uint16(at.Port))
	host, _, _ := net.SplitHostPort(s.cfg.Listen)
	s.udp, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp", net.JoinHostPort(host, fmt.Sprint(at.Port)))
	if err != nil {
		return err
	}
	if s.cfg.Relay {
		if s.ports.at, err = s.address(); err != nil {
			return err
		}
		s.ports.most = s.cfg.most
		s.log.Info("relaying", "address", s.ports.at)
	}
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	s.turn, err = turn.NewServer(turn.ServerConfig{
		Realm: realm, LoggerFactory: log, AuthHandler: s.authorize, ChannelBindTimeout: bindingLife,
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: s.udp, RelayAddressGenerator: &s.ports, PermissionHandler: s.permit}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: s.door, RelayAddressGenerator: &s.ports, PermissionHandler: s.permit}},
	})
	return err
}

// address finds the IPv4 address that relayed ports are told under.
func (s *Server) address() (netip.Addr, error) {
	switch ip := s.addr.Addr(); {
	case s.cfg.Address.Is4():
		return s.cfg.Address, nil
	case s.cfg.Address.IsValid():
		return netip.Addr{}, fmt.Errorf("relayed addresses are IPv4, %s is not", s.cfg.Address)
	case ip.Is4() && !ip.IsUnspecified():
		return ip, nil
	}
	// No packet is sent: this only asks the routing table.
	probe, err := new(net.Dialer).DialContext(context.Background(), "udp4", "192.0.2.1:9")
	if err == nil {
		ip := probe.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = probe.Close()
		return ip, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("this machine has no IPv4 address to relay under: name one")
}

// Addr returns the address and port of both networks.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Allocations returns how many there are now.
func (s *Server) Allocations() int {
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	return len(s.ports.open)
}

// Close ends all allocations and closes the ports. It may be called more than
// once.
func (s *Server) Close() error {
	s.once.Do(func() {
		if s.turn != nil {
			_ = s.turn.Close() // closes what it was given
		}
		if s.udp != nil {
			_ = s.udp.Close()
		}
		if s.door != nil {
			_ = s.door.Close()
		}
		s.ports.close()
	})
	return nil
}

// permit decides to which addresses a device may be relayed.
func (s *Server) permit(_ net.Addr, peer net.IP) bool {
	ip, ok := netip.AddrFromSlice(peer)
	if !ok {
		return false
	}
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case ip.IsLoopback(), ip.IsPrivate():
		return s.cfg.Private
	}
	return true
}
