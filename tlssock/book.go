package tlssock

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"peerlink/identity"
)

// Bounds of an address book: at most about 10 MB when full of the longest
// addresses, 1 MB with usual ones.
const (
	maxBookPeers = 4096
	maxBookAddrs = 8
	maxAddrLen   = 253 + 1 + 5 // a DNS name (RFC 1035), a colon, a port
)

// book remembers where devices listen. The zero value is empty.
type book struct {
	mu    sync.Mutex
	peers *simplelru.LRU[identity.DeviceID, []string]
}

func (b *book) add(peer identity.DeviceID, addrs []string) {
	if len(addrs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers == nil {
		b.peers, _ = simplelru.NewLRU[identity.DeviceID, []string](maxBookPeers, nil)
	}
	old, _ := b.peers.Get(peer)
	var merged []string
	for _, a := range slices.Concat(addrs, old) {
		if len(merged) < maxBookAddrs && !slices.Contains(merged, a) {
			merged = append(merged, a)
		}
	}
	b.peers.Add(peer, merged)
}

// get returns the addresses, newest first. The slice is not changed later.
func (b *book) get(peer identity.DeviceID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers == nil {
		return nil
	}
	addrs, _ := b.peers.Get(peer)
	return addrs
}

// checkAddr accepts "host:port" with a host and a port in 1–65535. An IPv6
// host stands in brackets.
func checkAddr(s string) error {
	if len(s) > maxAddrLen {
		return fmt.Errorf("address %.40q…: %d bytes, at most %d are taken", s, len(s), maxAddrLen)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("address %q: want host:port", s)
	}
	if host == "" {
		return fmt.Errorf("address %q: the host is missing", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: want a port from 1 to 65535", s)
	}
	return nil
}
