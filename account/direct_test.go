package account

import (
	"context"
	"net/netip"
	"slices"
	"testing"
)

// Callers are told the listener for direct TCP, with the port that it got.
func TestDirectPortsAreTold(t *testing.T) {
	for _, listen := range [][]string{nil, {"127.0.0.1:0"}} {
		acc, err := Create(t.TempDir(), Options{Name: "bob", Listen: listen, LocalDir: "off"})
		if err != nil {
			t.Fatal(err)
		}
		defer acc.Close()
		if err := acc.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		tell := acc.directPorts()
		if listen == nil {
			if tell != nil {
				t.Errorf("without a listener %v are told", tell())
			}
			continue
		}
		var want []netip.AddrPort
		for _, at := range acc.Addrs() {
			want = append(want, netip.MustParseAddrPort(at))
		}
		if got := tell(); len(got) != 1 || !slices.Equal(got, want) {
			t.Errorf("%v are told, and it listens on %v", got, want)
		}
	}
}
