package dht

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// Mode says what a node does for others.
type Mode int

const (
	// Client only asks: it listens on no port and stores nothing for others.
	// It is the zero value and right for every device behind a NAT.
	Client Mode = iota
	// Server also answers: it keeps routing entries, records and signals for
	// others, and must be reachable under its addresses.
	Server
	// Auto is a client that listens on a port of its own, and serves as a server
	// while others can reach it there: from ten minutes after its start on it asks
	// up to three nodes, now and then, to dial it at the address from which they
	// see it, if that is a public one. Behind a NAT it stays a client.
	Auto
)

// String returns "client", "server" or "auto".
func (m Mode) String() string {
	switch m {
	case Server:
		return "server"
	case Auto:
		return "auto"
	default:
		return "client"
	}
}

// Config says how a node runs. The zero value of a limit is its default.
type Config struct {
	// Identity is the device that publishes its record and sends and receives
	// signals. nil makes a bare node that only serves others; its Mode must
	// then be Server.
	Identity *identity.Identity
	// Trust is asked before a signal is delivered. nil allows everybody.
	Trust *identity.Trust
	// Bootstrap lists multiaddresses, each ending in /p2p/ID, of nodes through
	// which the network is joined. Empty is right for a network's first node.
	Bootstrap []string
	// Listen lists the multiaddresses (TCP) that a Server listens on; empty:
	// any port on all IPv4 and IPv6 addresses; so does Auto. A Client listens nowhere.
	Listen []string
	// Mode is what the node does for others.
	Mode Mode
	// Logger takes what an operator should know. nil discards it.
	Logger *slog.Logger

	// DataDir is a folder in which a node keeps its libp2p key (node.key, mode
	// 0600, made on first use), which is not the device's, so that its multiaddress
	// outlives a restart, and a Server (not Auto) the records that it stores for
	// others (at most 70 MB). Only one process can use it at a time.
	// Without DataDir the key is made afresh at every start, which keeps a
	// client's libp2p id from being linked to its device.
	DataDir string

	// ReachFile is a file in which a node remembers the addresses of nodes that it
	// reached, for 30 days, and through which nodes devices were signalled: they
	// are tried beside Bootstrap and the DHT, so that a device rejoins though all
	// bootstrap nodes are gone, and known devices are reached though look-ups
	// fail. Empty: nothing is remembered.
	ReachFile string
	// LAN also finds others on the local networks by mDNS (UDP port 5353) and is
	// found by them: such devices reach each other without any bootstrap node,
	// and whatever the DHT says. A Client then listens on a port of its own, but
	// serves its own device only and tells no node of it. What is announced is a
	// random name and the libp2p id, not the device.
	LAN bool
	// NetworkKey is a secret of 32 bytes that all nodes and devices of a private
	// network share; others cannot even begin to speak with them. Empty: none.
	NetworkKey []byte

	// MaxListeners is how many streams of listening devices a Server holds. 0: 2048.
	MaxListeners int
	// MaxStored is how many bytes of signals a Server keeps for absent
	// devices, with 512 more for each signal. 0: 16 MiB.
	MaxStored int

	// Tests set what follows; zero is the constant of the name.
	recordLife time.Duration
	signalRate int
	senderRate int
	queueLen   int
	now        func() time.Time      // the device's clock; nil: the system's
	public     func(netip.Addr) bool // which addresses count as public; nil: isPublic
	autoFirst  time.Duration
	beat       time.Duration // 0: beatEvery
}

// Defaults of Config; their fields tell the units.
const (
	defaultRecordLife   = 2 * time.Hour // a record is published anew after about a quarter of it
	defaultSignalRate   = 100           // strangers' signals verified a second; openShare times as many are opened
	defaultSenderRate   = 20            // signals a second of one sender; of both rates four seconds' worth may come at once
	defaultQueueLen     = 256           // signals of members, and of strangers, that wait for Receive; further ones are dropped and counted
	defaultMaxListeners = 2048
	defaultMaxStored    = 16 << 20
	networkKeyLen       = 32
)

// check fills in defaults and refuses what cannot work, before anything starts.
func (c *Config) check() (bootstrap []peer.AddrInfo, err error) {
	c.recordLife = cmp.Or(c.recordLife, defaultRecordLife)
	c.signalRate = cmp.Or(c.signalRate, defaultSignalRate)
	c.senderRate = cmp.Or(c.senderRate, defaultSenderRate)
	c.queueLen = cmp.Or(c.queueLen, defaultQueueLen)
	c.MaxListeners = cmp.Or(c.MaxListeners, defaultMaxListeners)
	c.MaxStored = cmp.Or(c.MaxStored, defaultMaxStored)
	c.autoFirst = cmp.Or(c.autoFirst, autoFirst)
	c.beat = cmp.Or(c.beat, beatEvery)
	if c.public == nil {
		c.public = isPublic
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	switch {
	case c.Mode != Client && c.Mode != Server && c.Mode != Auto:
		return nil, fmt.Errorf("dht: mode %d is neither Client, Server nor Auto", int(c.Mode))
	case c.Identity == nil && c.Mode != Server:
		return nil, errors.New("dht: a node without an identity serves nobody as a client: set Identity, or Mode to Server")
	case c.Mode == Client && len(c.Listen) > 0:
		return nil, errors.New("dht: a client listens nowhere: leave Listen empty, or set Mode to Server")
	case len(c.NetworkKey) != 0 && len(c.NetworkKey) != networkKeyLen:
		return nil, fmt.Errorf("dht: NetworkKey has %d bytes, want %d", len(c.NetworkKey), networkKeyLen)
	case min(c.MaxListeners, c.MaxStored) < 0:
		return nil, errors.New("dht: a limit is negative: none of them can be switched off")
	}
	for _, s := range c.Bootstrap {
		ai, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("dht: bootstrap address %.200q: %w (want something like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…)", s, err)
		}
		bootstrap = append(bootstrap, *ai)
	}
	return bootstrap, nil
}
