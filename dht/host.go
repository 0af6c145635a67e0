package dht

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	xrate "github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"

	"peerlink/internal/atomicfile"
)

// The private network: nothing here speaks the public one's protocols.
const (
	protocolPrefix protocol.ID = "/peerlink"
	kadProtocol    protocol.ID = protocolPrefix + "/kad/1.0.0"
	userAgent                  = "peerlink/1"
)

// Bounds of a host. libp2p allows 8 connections per IPv4 address and one new
// one in 5 s, which an office or a carrier's NAT exceeds with its first floor.
const (
	dialTimeout       = 5 * time.Second
	connsPerAddress   = 64
	connsPerAddressHz = 4
	connGrace         = 20 * time.Second
	yamuxWindow       = 256 << 10 // what yamux books for a stream
)

// newHost makes a lean libp2p host: TCP, Noise, yamux and nothing else.
func newHost(cfg Config, at *auto) (host.Host, error) {
	key, err := hostKey(cfg)
	if err != nil {
		return nil, err
	}
	low, high := 64, 128
	reach, listen, tell := libp2p.ForceReachabilityPrivate(), libp2p.NoListenAddrs, nobody
	switch {
	case cfg.Mode == Client && cfg.LAN:
		listen = libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0") // and IPv6, on the same port, later
	case cfg.Mode == Auto:
		low, high = 512, 1024
		tell = func([]ma.Multiaddr) []ma.Multiaddr { return at.addrs() }
		addrs := cfg.Listen
		if len(addrs) == 0 {
			addrs = []string{"/ip4/0.0.0.0/tcp/0"}
		}
		listen = libp2p.ListenAddrStrings(addrs...)
	case cfg.Mode == Server:
		tell = everybody
		low, high = 512, 1024
		addrs := cfg.Listen
		if len(addrs) == 0 {
			addrs = []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"}
		}
		reach, listen = libp2p.ForceReachabilityPublic(), libp2p.ListenAddrStrings(addrs...)
	}
	enter := libp2p.ChainOptions()
	if cfg.Mode != Client { // whose few connections libp2p bounds
		enter = libp2p.ConnectionGater(newDoor())
	}
	resources, err := newResourceManager(cfg)
	if err != nil {
		return nil, fmt.Errorf("dht: limit resources: %w", err)
	}
	conns, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		_ = resources.Close()
		return nil, fmt.Errorf("dht: manage connections: %w", err)
	}
	h, err := libp2p.New(
		libp2p.Identity(key), listen, reach, libp2p.AddrsFactory(tell),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false),
		libp2p.ConnectionManager(conns), libp2p.ResourceManager(resources), enter,
		privateNetwork(cfg.NetworkKey), libp2p.WithDialTimeout(dialTimeout), libp2p.UserAgent(userAgent), libp2p.ProtocolVersion(userAgent))
	if err != nil {
		_, _ = conns.Close(), resources.Close()
		return nil, fmt.Errorf("dht: start libp2p on %q: %w", cfg.Listen, err)
	}
	if cfg.Mode == Client && cfg.LAN || cfg.Mode == Auto && len(cfg.Listen) == 0 {
		listenOnIPv6(h)
	}
	return h, nil
}

// Which addresses a host tells its peers: a server's all, a client's none, as it
// can be reached under them from its own networks at most.
func everybody(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }
func nobody([]ma.Multiaddr) []ma.Multiaddr          { return nil }

// listenOnIPv6 adds IPv6 on the port that a host has on IPv4, as mDNS announces
// one port for both. A machine without it, or another's port there, is no error.
func listenOnIPv6(h host.Host) {
	if a, err := ma.NewMultiaddr(fmt.Sprintf("/ip6/::/tcp/%d", listenPort(h.Network().ListenAddresses()))); err == nil {
		_ = h.Network().Listen(a)
	}
}

// privateNetwork has all connections begin with proof of the network's key.
func privateNetwork(key []byte) libp2p.Option {
	if len(key) == 0 {
		return libp2p.ChainOptions()
	}
	return libp2p.PrivateNetwork(pnet.PSK(key))
}

// newResourceManager is libp2p's own, with room for NATs (loopback is exempt
// anyhow) and, on a server, for the devices that listen to it: the defaults end
// at 128 connections, and at about 900 streams of one protocol, because yamux
// books 256 KiB for a stream whether or not it ever uses them.
func newResourceManager(cfg Config) (network.ResourceManager, error) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	limits := defaults.AutoScale()
	if cfg.Mode != Client {
		limits = serverLimits(cfg.MaxListeners).Build(limits)
	}
	rate := xrate.Limit{RPS: connsPerAddressHz, Burst: connsPerAddress}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}, {PrefixLength: 48, ConnCount: 4 * connsPerAddress}}),
		rcmgr.WithConnRateLimiters(&xrate.Limiter{
			NetworkPrefixLimits: []xrate.PrefixLimit{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")}},
			SubnetRateLimiter: xrate.SubnetLimiter{
				IPv4SubnetLimits: []xrate.SubnetLimit{{PrefixLength: 32, Limit: rate}},
				IPv6SubnetLimits: []xrate.SubnetLimit{{PrefixLength: 56, Limit: rate}},
				GracePeriod:      time.Minute,
			},
		}))
}

// serverLimits makes room for so many devices, each with a listening stream and
// a Kademlia stream, and for other nodes and passing callers.
func serverLimits(devices int) rcmgr.PartialLimitConfig {
	const others = 1024
	all := rcmgr.LimitVal(devices + others)
	booked := rcmgr.LimitVal64(yamuxWindow * (devices + others))
	each := rcmgr.ResourceLimits{Streams: all, StreamsInbound: all, StreamsOutbound: all, Memory: booked}
	return rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{Conns: all, ConnsInbound: all, Streams: 3 * all, StreamsInbound: 3 * all, Memory: 3 * booked},
		// Twice what the door lets in: the displaced take a moment to go.
		Transient: rcmgr.ResourceLimits{Conns: 2 * maxUnproven, ConnsInbound: 2 * maxUnproven, FD: 2 * maxUnproven},
		Protocol:  map[protocol.ID]rcmgr.ResourceLimits{pushProtocol: each, kadProtocol: each},
	}
}

// newKad makes the Kademlia part of a node on h. In its ModeAuto it follows what
// auto says; libp2p itself has nothing that would find out.
func newKad(cfg Config, h host.Host, values *store, g *guard) (*kad.IpfsDHT, error) {
	mode := kad.ModeClient
	switch cfg.Mode {
	case Server:
		mode = kad.ModeServer
	case Auto:
		mode = kad.ModeAuto
	}
	// The store deletes what is over itself, by what the records say.
	d, err := kad.New(h, kad.Mode(mode), kad.ProtocolPrefix(protocolPrefix),
		kad.Validator(validators()), kad.Datastore(values), kad.MaxRecordAge(maxRecordLife), kad.ValueGCInterval(0),
		kad.DisableProviders(), kad.OnRequestHook(g.check))
	if err != nil {
		return nil, fmt.Errorf("dht: start Kademlia: %w", err)
	}
	return d, nil
}

// hostKey is the node's own key, which is never the device's.
func hostKey(cfg Config) (crypto.PrivKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	if cfg.DataDir != "" {
		var err error
		if seed, err = loadNodeKey(filepath.Join(cfg.DataDir, nodeKeyFile)); err != nil {
			return nil, err
		}
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, fmt.Errorf("dht: node key: %w", err)
	}
	return key, nil
}

// nodeKeyFile is the file of DataDir with the seed of the node's key, 32 bytes.
const nodeKeyFile = "node.key"

// loadNodeKey reads a key file, or makes it where there is none. A damaged or
// readable one is refused: a new key would silently change the multiaddress
// that others have written down.
func loadNodeKey(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeNodeKey(path)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("dht: node key: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("dht: node key %s is not a regular file (%v)", path, st.Mode().Type())
	case st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows": // which has no such bits
		return nil, fmt.Errorf("dht: others can read node key %s (mode %04o): chmod 600 it, or delete it to get a new address", path, st.Mode().Perm())
	case st.Size() != ed25519.SeedSize:
		return nil, fmt.Errorf("dht: node key %s has %d bytes, want %d: restore it, or delete it to get a new address", path, st.Size(), ed25519.SeedSize)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("dht: node key: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("dht: node key %s changed while it was read", path)
	}
	return seed, nil
}

func makeNodeKey(path string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("dht: make folder of node key: %w", err)
	}
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	if err := atomicfile.Write(path, seed); err != nil {
		return nil, fmt.Errorf("dht: write node key: %w", err)
	}
	return seed, nil
}
