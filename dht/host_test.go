package dht

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// What libp2p counts before anything is said: connections of one address and of one
// IPv6 network, those in their handshake, and all; of the files that the process
// may open it takes half. What is given back can be taken again.
// case: S10
func TestAServersConnectionsAreBounded(t *testing.T) {
	cfg := Config{Mode: Server}
	if _, err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	rm, err := newResourceManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	open := func(most int, addr func(i int) string) (scopes []network.ConnManagementScope) {
		for i := range most {
			a, err := ma.NewMultiaddr(addr(i))
			if err != nil {
				t.Fatal(err)
			}
			if s, err := rm.OpenConnection(network.DirInbound, true, a); err == nil {
				scopes = append(scopes, s)
			}
		}
		return scopes
	}
	done := func(scopes []network.ConnManagementScope) {
		for _, s := range scopes {
			s.Done()
		}
	}
	one := open(200, func(int) string { return "/ip4/192.0.2.1/tcp/1" })
	if len(one) != connsPerAddress {
		t.Errorf("%d connections of one address", len(one))
	}
	other := open(1, func(int) string { return "/ip4/192.0.2.2/tcp/1" })
	if len(other) != 1 {
		t.Error("another address is refused")
	}
	done(append(one, other...))
	six := open(500, func(i int) string { return fmt.Sprintf("/ip6/2001:db8:1:%x::1/tcp/1", (i&0xff)<<8) })
	if len(six) > 4*connsPerAddress {
		t.Errorf("%d connections of one IPv6 network", len(six))
	}
	done(six)
	many := func(i int) string { return fmt.Sprintf("/ip4/198.%d.%d.1/tcp/1", 18+i>>8, i&0xff) }
	all := open(5000, many)
	if most := defaultMaxListeners + 1024; len(all) > most || len(all) < 64 {
		t.Errorf("%d connections of many addresses", len(all))
	}
	n := len(all)
	done(all)
	if again := open(5000, func(i int) string { return many(5000 + i) }); len(again) != n {
		t.Errorf("%d connections after the flood, want %d", len(again), n)
	} else {
		done(again)
	}
}
