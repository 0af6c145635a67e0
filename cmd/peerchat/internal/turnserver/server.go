package turnserver

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/proving"
)

const (
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
	// Private lets devices be relayed to loopback and private addresses and to this
	// machine's own, for networks that have no others.
	Private bool
	// Member tells which devices have room of their own, apart from the room of
	// strangers. It must not block, and may be called concurrently. Nil: all are
	// strangers.
	Member func(identity.Peer) bool
	// MembersOnly refuses strangers.
	MembersOnly bool
	// Rate is how many bytes a second are relayed for one member, or for all
	// strangers at one IPv4 address or IPv6 /64, both directions together. RateAll
	// is that of all; beside members, strangers have half of it. Zero: 8 MiB and
	// 64 MiB. Less: no limit.
	Rate, RateAll int64
	// Logger hears of what no caller is told. Nil is silent.
	Logger *slog.Logger

	most  int           // tests: the allocations of all devices; 0: maxAllocations
	grace time.Duration // tests: 0: graceLimit
}

// Server is a running STUN and TURN server. Make one with Listen. Its methods
// may be called concurrently.
type Server struct {
	*issuer
	cfg   Config
	log   *slog.Logger
	logs  *rate.Limiter // of what strangers cause
	addr  netip.AddrPort
	udp   net.PacketConn
	door  *door
	turn  *turn.Server
	meter *meter
	ports ports // without Config.Relay it gives out none: the server only reflects
	own   map[netip.Addr]bool
	once  sync.Once
}

// Listen opens the ports and serves until Close. It fails when a port is taken
// or no address to relay under is found.
func Listen(cfg Config) (*Server, error) {
	cfg.most, cfg.grace = cmp.Or(cfg.most, maxAllocations), cmp.Or(cfg.grace, graceLimit)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("turnserver: Config.Key is missing")
	}
	members := cfg.Member != nil
	s := &Server{
		issuer: newIssuer(cfg, newPlaces(cfg.most, members)), cfg: cfg, log: cfg.Logger, own: make(map[netip.Addr]bool),
		logs:  rate.NewLimiter(proving.LogsPerSecond, proving.LogsPerSecond),
		meter: newMeter(cmp.Or(cfg.Rate, defaultRate), cmp.Or(cfg.RateAll, defaultRateAll), members),
	}
	s.ports.s = s
	if err := s.listen(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("turnserver: listen on %s: %w", cfg.Listen, err)
	}
	return s, nil
}

// listen opens the sockets, the same port on each.
func (s *Server) listen() error {
	listener, udp, err := openBoth(s.cfg.Listen)
	if err != nil {
		return err
	}
	s.udp = udp
	if s.door, err = newDoor(s, listener); err != nil {
		_ = listener.Close()
		return err
	}
	at := listener.Addr().(*net.TCPAddr)
	s.addr = netip.AddrPortFrom(at.AddrPort().Addr().Unmap(), uint16(at.Port))
	if s.cfg.Relay {
		if s.ports.at, err = s.address(); err != nil {
			return err
		}
		if err := s.findOwn(); err != nil {
			return err
		}
		s.log.Info("relaying", "address", s.ports.at)
	}
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	s.turn, err = turn.NewServer(turn.ServerConfig{
		Realm: realm, LoggerFactory: log, AuthHandler: s.authorize, QuotaHandler: s.mayAllocate, ChannelBindTimeout: bindingLife,
		StrictAddressFamily: true, // IPv4, also for a client that comes over IPv6
		PacketConnConfigs:   []turn.PacketConnConfig{{PacketConn: s.udp, RelayAddressGenerator: &s.ports, PermissionHandler: s.permit}},
		ListenerConfigs:     []turn.ListenerConfig{{Listener: s.door, RelayAddressGenerator: &s.ports, PermissionHandler: s.permit}},
	})
	return err
}

// openBoth opens the same port for TCP and UDP. Where it may pick one, the one that
// TCP gets may be taken for UDP, by a relayed port for instance: then another.
func openBoth(at string) (tcp net.Listener, udp net.PacketConn, err error) {
	host, port, _ := net.SplitHostPort(at)
	for range 16 {
		if tcp, err = new(net.ListenConfig).Listen(context.Background(), "tcp", at); err != nil {
			return nil, nil, err
		}
		number := fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port)
		if udp, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp", net.JoinHostPort(host, number)); err == nil {
			return tcp, udp, nil
		}
		_ = tcp.Close()
		if number == port {
			break
		}
	}
	return nil, nil, err
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

// permit implements turn.PermissionHandler.
func (s *Server) permit(client net.Addr, peer net.IP) bool {
	ip, _ := netip.AddrFromSlice(peer)
	ip = ip.Unmap()
	q := s.ports.of(client)
	return q != nil && s.isPublic(ip) && q.admit(ip, time.Now())
}

// isPublic tells whether devices may be relayed to an address. Of this machine's
// own ones only that of relayed ports is: two relayed devices meet there (isOwn).
func (s *Server) isPublic(ip netip.Addr) bool {
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), reserved.Contains(ip), thisNetwork.Contains(ip):
		return false
	case s.cfg.Private:
		return true
	}
	return !ip.IsLoopback() && !ip.IsPrivate() && !carriers.Contains(ip) && (!s.own[ip] || ip == s.ports.at)
}

// Networks that package netip has no word for (RFC 6890): of hosts without an
// address, of a carrier's customers, and of later use with the broadcast address.
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	carriers    = netip.MustParsePrefix("100.64.0.0/10")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
)

// isOwn reports whether an address is a port of this machine that is not relayed.
func (s *Server) isOwn(at netip.AddrPort) bool {
	return !s.cfg.Private && s.own[at.Addr()] && !s.ports.gave(at.Port())
}

// findOwn learns the addresses of this machine.
func (s *Server) findOwn() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			s.own[p.Addr().Unmap()] = true
		}
	}
	s.own[s.ports.at] = true
	return nil
}

// debug logs what a stranger has caused.
func (s *Server) debug(msg string, args ...any) {
	if s.logs.Allow() {
		s.log.Debug(msg, args...)
	}
}
