package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"peerlink"
	"peerlink/ice"
	"peerlink/identity"
)

// candidates reads "udp host 10.0.0.1:1", separated by commas.
func candidates(s string) (out []ice.CandidateReport) {
	for c := range strings.SplitSeq(s, ",") {
		if w := strings.Fields(c); len(w) == 3 {
			out = append(out, ice.CandidateReport{Engine: w[0], Type: w[1], Address: netip.MustParseAddrPort(w[2])})
		}
	}
	return out
}

// pathTold reads "udp host 10.0.0.2:1→10.0.0.3:2", with the class left out perhaps.
func pathTold(t *testing.T, s, relay string) peerlink.Path {
	words := strings.Fields(s)
	local, remote, ok := strings.Cut(words[len(words)-1], "→")
	if !ok {
		return peerlink.Path{Engine: words[0], Detail: strings.Join(words[1:], " ")}
	}
	p := peerlink.Path{Engine: words[0], Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Relay: relay}
	if len(words) == 3 {
		p.Class = words[1]
	}
	if p.String() != s {
		t.Fatalf("%q is read as %q", s, p)
	}
	return p
}

func TestThePathIsThatOfTheLink(t *testing.T) {
	const (
		home   = "udp host 10.0.0.2:1000, udp srflx 203.0.113.13:2000"
		office = "udp host 192.168.7.7:1000, udp srflx 203.0.113.14:3000"
		server = "udp host 198.51.100.9:4000"
	)
	for name, c := range map[string]struct {
		carrier, path, way, local, remote, relay string
		want                                     []string
	}{
		"memory":          {"shm", "shm (512 KiB)", "", "", "", "", []string{"here  shm", "there bob "}},
		"direct TCP":      {"tcp", "tcp 10.0.0.2:5→10.0.0.3:7000", "", "", "", "", []string{"here 10.0.0.2:5 tcp", "there bob 10.0.0.3:7000 "}},
		"one LAN":         {"ice", "udp host 10.0.0.2:1000→10.0.0.3:1000", "direct", home, "udp host 10.0.0.3:1000, udp srflx 203.0.113.13:9", "", []string{"here 10.0.0.2:1000 udp", "there bob 10.0.0.3:1000 "}},
		"a server":        {"ice", "udp host 10.0.0.2:1000→198.51.100.9:4000", "direct", home, server, "", []string{"here 10.0.0.2:1000 udp", "nat 203.0.113.13 udp", "there bob 198.51.100.9:4000 "}},
		"called by a NAT": {"ice", "udp prflx 198.51.100.9:4000→203.0.113.14:3111", "direct", server, office, "", []string{"here 198.51.100.9:4000 udp", "nat 203.0.113.14 udp", "there bob 192.168.7.7:1000 "}},
		"punched":         {"ice", "udp srflx 10.0.0.2:1000→203.0.113.14:3000", "punched", home, office, "", []string{"here 10.0.0.2:1000 udp", "nat 203.0.113.13 udp", "nat 203.0.113.14 udp", "there bob 192.168.7.7:1000 "}},
		"our relay":       {"ice", "udp relay 203.0.113.10:1→203.0.113.14:2", "relay", home, office, "turn:203.0.113.10:3478 over udp", []string{"here 10.0.0.2:1000 udp", "nat 203.0.113.13 udp", "relay turn:203.0.113.10:3478 over udp 203.0.113.10:1 udp", "nat 203.0.113.14 udp", "there bob 192.168.7.7:1000 "}},
		"their relay":     {"ice", "udp relay 10.0.0.2:1000→203.0.113.10:9", "relay", home, office, "", []string{"here 10.0.0.2:1000 udp", "nat 203.0.113.13 udp", "relay 203.0.113.10:9 udp", "nat 203.0.113.14 udp", "there bob 192.168.7.7:1000 "}},
		"not remembered":  {"ice", "udp srflx 10.0.0.2:1000→203.0.113.14:3000", "", "", "", "", []string{"here 10.0.0.2:1000 udp", "there bob 203.0.113.14:3000 "}},
	} {
		path := pathTold(t, c.path, c.relay)
		l := peerlink.Connection{Peer: identity.Peer{Name: "bob"}, Carrier: c.carrier, Path: path}
		r := ice.Report{Way: c.way, Path: path, Local: candidates(c.local), Remote: candidates(c.remote), Relay: c.relay}
		var got []string
		for _, h := range hopsOf(l, r) {
			got = append(got, strings.Join(strings.Fields(h.Kind+" "+h.Name+" "+h.Addr+" "+h.By), " "))
		}
		for i := range c.want {
			c.want[i] = strings.Join(strings.Fields(c.want[i]), " ")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestAPathWithoutAddressesIsShort(t *testing.T) {
	one := netip.MustParseAddrPort("10.0.0.2:1")
	for _, path := range []peerlink.Path{{}, {Engine: "x"}, {Engine: "udp", Class: "relay"}, {Engine: "udp", Class: "relay", Detail: "nonsense→more"}, {Engine: "tcp", Local: one}, {Engine: "tcp", Remote: one}} {
		l := peerlink.Connection{Carrier: "adopted", Path: path}
		if got := hopsOf(l, ice.Report{Path: path}); len(got) != 2 || got[0].Kind != HopHere || got[1].Kind != HopThere || got[1].Name == "" {
			t.Errorf("%q: %+v", path, got)
		}
	}
}
