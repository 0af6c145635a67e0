package dht

import (
	"context"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/reach"
)

// What a node remembers over a restart, in ReachFile.
const (
	networkName  = "network" // nodes of the network, to join through
	devicePrefix = "device " // before a device id: nodes that pushed a signal to it
	saveEvery    = 10 * time.Second
)

// memory is the nodes that worked. The nil memory remembers nothing.
type memory struct {
	book *reach.Book
	host host.Host
	log  *slog.Logger
}

// openMemory reads a reach file. One that is damaged is replaced: what it held
// can be found again.
func openMemory(path string, log *slog.Logger) *memory {
	if path == "" {
		return nil
	}
	book, err := reach.Open(path)
	if err != nil {
		log.Warn("dht: "+err.Error(), "file", path)
	}
	return &memory{book: book, log: log}
}

// run saves what is new until ctx is done, and once more.
func (m *memory) run(ctx context.Context) {
	complained := false
	for more := true; more; {
		more = pause.For(ctx, saveEvery) == nil
		if err := m.book.Save(); err != nil && !complained {
			complained = true
			m.log.Warn("dht: addresses are remembered in memory only", "err", err)
		}
	}
}

func (m *memory) noteNode(p peer.ID) { m.note(networkName, p) }

// noteCarrier remembers a node that pushed a signal to a device.
func (m *memory) noteCarrier(id identity.DeviceID, p peer.ID) { m.note(devicePrefix+id.String(), p) }

// note remembers where p was dialled. Where it dialled us its port is of no use.
func (m *memory) note(name string, p peer.ID) {
	if m == nil {
		return
	}
	for _, c := range m.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound {
			m.book.Worked(name, reach.Via{ID: p.String(), Addrs: []string{c.RemoteMultiaddr().String()}}, time.Now())
			return
		}
	}
}

func (m *memory) nodes() []peer.AddrInfo { return m.known(networkName) }

// carriers lists nodes that pushed a signal to a device, the latest first.
func (m *memory) carriers(id identity.DeviceID) []peer.AddrInfo {
	all := m.known(devicePrefix + id.String())
	return all[:min(len(all), maxRemembered)]
}

func (m *memory) known(name string) []peer.AddrInfo {
	if m == nil {
		return nil
	}
	var out []peer.AddrInfo
	for _, v := range m.book.Known(name, time.Now()) {
		id, err := peer.Decode(v.ID)
		if err != nil {
			continue
		}
		ai := peer.AddrInfo{ID: id}
		for _, s := range v.Addrs {
			if a, err := ma.NewMultiaddr(s); err == nil {
				ai.Addrs = append(ai.Addrs, a)
			}
		}
		if len(ai.Addrs) > 0 && (m.host == nil || id != m.host.ID()) {
			out = append(out, ai)
		}
	}
	return out
}
