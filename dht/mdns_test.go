package dht

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/libp2p/zeroconf/v2"

	"peerlink/internal/netwatch"
)

func homeLAN() []netwatch.Interface {
	return []netwatch.Interface{{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24"), netip.MustParsePrefix("2001:db8::5/64")}}}
}

func mdnsEntry(change func(*zeroconf.ServiceEntry)) *zeroconf.ServiceEntry {
	e := &zeroconf.ServiceEntry{ServiceRecord: zeroconf.ServiceRecord{Instance: "other"}}
	e.Port, e.Text = 4001, []string{"id=1"}
	e.AddrIPv4 = []net.IP{net.IPv4(192, 0, 2, 7)}
	change(e)
	return e
}

// What is announced can say anything; only addresses on our own networks are
// taken from it.
//
// fault: E8, A1
func TestOnlyAddressesOfOurNetworksAreTold(t *testing.T) {
	s := announcer{name: "me"}
	for name, c := range map[string]struct {
		change func(*zeroconf.ServiceEntry)
		want   string
	}{
		"a neighbour": {func(*zeroconf.ServiceEntry) {}, "192.0.2.7:4001"},
		"both kinds": {
			func(e *zeroconf.ServiceEntry) { e.AddrIPv6 = []net.IP{net.ParseIP("2001:db8::7")} },
			"192.0.2.7:4001 [2001:db8::7]:4001",
		},
		"twice the same": {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = append(e.AddrIPv4, e.AddrIPv4...) }, "192.0.2.7:4001"},
		"elsewhere":      {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = []net.IP{net.IPv4(198, 51, 100, 1)} }, ""},
		"loopback":       {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = []net.IP{net.IPv4(127, 0, 0, 1)} }, ""},
		"multicast":      {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = []net.IP{net.IPv4(224, 0, 0, 251)} }, ""},
		"link-local":     {func(e *zeroconf.ServiceEntry) { e.AddrIPv4, e.AddrIPv6 = nil, []net.IP{net.ParseIP("fe80::1")} }, ""},
		"garbage":        {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = []net.IP{{1, 2, 3}} }, ""},
		"no address":     {func(e *zeroconf.ServiceEntry) { e.AddrIPv4 = nil }, ""},
		"port 0":         {func(e *zeroconf.ServiceEntry) { e.Port = 0 }, ""},
		"port 65536":     {func(e *zeroconf.ServiceEntry) { e.Port = 1 << 16 }, ""},
		"ourselves":      {func(e *zeroconf.ServiceEntry) { e.Instance = "me" }, ""},
		"a long name":    {func(e *zeroconf.ServiceEntry) { e.Instance = strings.Repeat("x", 300) }, ""},
	} {
		p, ok := s.read(mdnsEntry(c.change), homeLAN())
		var got []string
		for _, a := range p.addrs {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, ok, c.want)
		}
	}
}

// fault: A1, J1
func TestWhatIsToldIsBounded(t *testing.T) {
	e := mdnsEntry(func(e *zeroconf.ServiceEntry) {
		e.AddrIPv4 = nil
		for i := range 200 {
			e.AddrIPv4 = append(e.AddrIPv4, net.IPv4(192, 0, 2, byte(i+1)))
			e.Text = append(e.Text, strings.Repeat("x", 200+i))
		}
	})
	p, ok := announcer{name: "me"}.read(e, homeLAN())
	if !ok || len(p.addrs) != maxAnnouncedAddrs || len(p.text) != maxAnnouncedText {
		t.Errorf("%d addresses, %d texts", len(p.addrs), len(p.text))
	}
	told := 0
	s := announcer{name: "me", found: func(announced) { told++ }}
	s.log = slog.New(slog.DiscardHandler)
	entries := make(chan *zeroconf.ServiceEntry, 1000)
	for range cap(entries) {
		entries <- mdnsEntry(func(*zeroconf.ServiceEntry) {})
	}
	close(entries)
	s.hear(entries, nil, homeLAN())
	if told != maxAnnounced || len(entries) != 0 {
		t.Errorf("%d were told, %d are left", told, len(entries))
	}
}
