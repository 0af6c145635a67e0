package ice

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func TestServerURLs(t *testing.T) {
	for in, want := range map[string]string{
		"stun:h":                    "stun:h:3478",
		"stun:h:1":                  "stun:h:1",
		"stun:[2001:db8::1]:5":      "stun:[2001:db8::1]:5",
		"stun:192.0.2.1":            "stun:192.0.2.1:3478",
		"turn:h":                    "turn:h:3478",
		"turn:h:5?transport=tcp":    "turn:h:5?transport=tcp",
		"turns:h":                   "turns:h:5349",
		"turns:h:443?transport=tcp": "turns:h:443",
	} {
		s, err := parseServer(Server{URL: in})
		if err != nil || s.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, s, err, want)
		}
	}
	for _, bad := range []string{"", "h", "stun:", "http:h", "stun:h:0", "stun:]0", "stun:[h", "stun:a:b:c", "stun:h:65536", "stun:h?transport=udp", "turn:h?transport=tls", "turn:h?x=udp", "turns:h?transport=udp", "turn:u:p@h", "stun:" + strings.Repeat("a", 300)} {
		if err := CheckServerURL(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzServerURL(f *testing.F) {
	f.Add("turn:h:5?transport=tcp")
	f.Add("stun:[::1]:1")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := parseServer(Server{URL: in})
		if err != nil {
			return
		}
		again, err := parseServer(Server{URL: s.String()})
		if err != nil || again.String() != s.String() {
			t.Errorf("%q became %q, and that %q, %v", in, s, again, err)
		}
	})
}

// The vector of coturn's own documentation: HMAC-SHA-1 of the user name.
func TestSharedSecretsMakeCoturnsPasswords(t *testing.T) {
	// echo -n 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
	if got := SharedPassword("north", "1700000000:alice"); got != "Cd/49soE35ICqcJF/bCTn8Z4OyE=" {
		t.Errorf("password %q", got)
	}
	s, err := parseServer(Server{URL: "turn:h", Secret: "north", Username: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	user, password, err := s.credentials(t.Context())
	until, label, _ := strings.Cut(user, ":")
	if err != nil || label != "alice" || password != SharedPassword("north", user) || until <= "1700000000" {
		t.Errorf("credentials %q, %q, %v", user, password, err)
	}
	for want, bad := range map[string]Server{"no credentials": {URL: "turn:h"}, "no credentials ": {URL: "turn:h", Username: "u"}} {
		s, _ := parseServer(bad)
		if _, _, err := s.credentials(t.Context()); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestTooManyServersAreRefused(t *testing.T) {
	x := newExchange()
	id := newIdentity(t, "a")
	cfg := Config{Identity: id, Signaller: x.Join(id)}
	for range maxServers + 1 {
		cfg.Servers = append(cfg.Servers, Server{URL: "stun:h"})
	}
	if _, err := New(cfg); err == nil {
		t.Error("taken")
	}
	cfg.Servers = []Server{{URL: "nonsense"}}
	if _, err := New(cfg); err == nil {
		t.Error("nonsense is taken")
	}
}

// fault: A1, F3
func FuzzMappedAddress(f *testing.F) {
	m, err := stun.Build(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: []byte{192, 0, 2, 1}, Port: 9})
	if err != nil {
		f.Fatal(err)
	}
	if a := mappedAddress(m.Raw); a != netip.MustParseAddrPort("192.0.2.1:9") {
		f.Fatal(a)
	}
	f.Add(m.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a := mappedAddress(b); a.IsValid() && a.Port() == 0 {
			t.Errorf("address %s", a)
		}
	})
}

// The best class goes first, whatever engine is preferred, and relays last.
func TestClassesAreRankedByPreference(t *testing.T) {
	for want, engines := range map[string][]string{
		"tcp udp punched relay relays": {"tcp", "udp"},
		"udp tcp punched relay relays": {"udp", "tcp"},
		"tcp punched":                  {"tcp"},
		"udp relay relays":             {"udp"},
		"":                             nil,
	} {
		var got []string
		for _, c := range classes(engines) {
			got = append(got, [...]string{"tcp", "udp", "punched", "relay", "relays"}[c])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", engines, got, want)
		}
	}
}

// Candidates from outside find room among many interfaces, once each, and not
// without bound.
// fault: F5
func TestOutsideCandidatesTakePartOfTheShare(t *testing.T) {
	at := func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1) }
	var hosts, outside []candidate
	for i := range candidatesPerEngine {
		hosts = append(hosts, candidate{hostCandidate, at(i)})
	}
	outside = append(outside, candidate{srflxCandidate, at(3)}) // no NAT
	for i := range 2 * maxOutside {
		outside = append(outside, candidate{srflxCandidate, at(100 + i)}, candidate{srflxCandidate, at(100 + i)})
	}
	got := withOutside(hosts, outside)
	if len(got) != candidatesPerEngine || got[0] != hosts[0] || got[candidatesPerEngine-maxOutside].typ != srflxCandidate {
		t.Errorf("candidates %v", got)
	}
	var o seenFrom
	for i := range 4 * maxSightings {
		o.set("udp", string(rune('a'+i)), candidate{srflxCandidate, at(i)})
	}
	if n := len(o.of("udp")); n != maxSightings {
		t.Errorf("%d sightings are kept", n)
	}
	news := o.news()
	o.set("udp", "a", candidate{srflxCandidate, at(0)})
	select {
	case <-news:
		t.Error("the same is no news")
	default:
	}
	o.set("udp", "a", candidate{srflxCandidate, at(200)})
	<-news
}

type seenFrom = outside

func TestWhyRelayedTellsWhatIsKnown(t *testing.T) {
	srflx := func(engine, addr string) CandidateReport {
		return CandidateReport{engine, "srflx", netip.MustParseAddrPort(addr)}
	}
	r := Report{
		Local:  []CandidateReport{srflx("udp", "192.0.2.1:1"), srflx("udp", "192.0.2.1:2")},
		Remote: []CandidateReport{srflx("tcp", "192.0.2.2:1")},
		Checks: []CheckReport{{Engine: "udp", Target: "srflx x"}, {Engine: "udp", Target: "relay y"}, {Engine: "udp", Target: "host z", OK: true}},
	}
	got := whyRelayed(r)
	for _, part := range []string{"this device's NAT takes another port", "the other device over UDP", "1 direct addresses did not answer"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in %q", part, got)
		}
	}
}

// The story of a Dial has both sides' candidates, what was tried and how it
// went.
func TestAReportTellsTheStory(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	var r Report
	var conn net.Conn
	ctx := WithReport(limit(t, 20*time.Second), func(told Report) { r = told })
	for tries := 0; len(r.Remote) == 0; tries++ { // the other side may connect before its answer is here
		if tries == 20 {
			t.Fatalf("no answer came in time: %+v", r)
		}
		var err error
		conn, _, err = a.Dial(ctx, b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	worked := false
	for _, c := range r.Checks {
		worked = worked || c.OK
	}
	if r.Peer != b.id.DeviceID() || len(r.Local) != 2 || len(r.Remote) != 2 || r.Way != wayDirect || r.Path.String() != pathOf(conn) || !worked || r.Error != "" ||
		r.Offered <= 0 || r.Answered < 0 || r.Found <= 0 || r.Ended < r.Found {
		t.Errorf("report %+v", r)
	}
	_, _, err := a.Dial(ctx, newIdentity(t, "nobody").DeviceID())
	if err == nil || r.Error != err.Error() || r.Way != "" {
		t.Errorf("report of a failure %+v, %v", r, err)
	}
}

func allocated(t *testing.T, life ...uint32) []byte {
	t.Helper()
	m := stunMessage(t, stun.NewType(stun.MethodAllocate, stun.ClassSuccessResponse))
	for _, l := range life {
		m.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, l))
	}
	m.WriteHeader()
	return m.Raw
}

// A server that gives an allocation next to no life would have the client
// refresh it without a pause, and garbage would end its reader without a word.
// fault: F3
func TestWhatAServerMayNotSayDoesNotReachTheClient(t *testing.T) {
	binding := stunMessage(t, stun.BindingSuccess).Raw
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"an hour":      {allocated(t, 3600), true},
		"no life":      {allocated(t, 0), false},
		"a second":     {allocated(t, 1), false},
		"unsaid":       {allocated(t), false},
		"channel data": {[]byte{0x40, 0, 0, 1, 'x', 0, 0, 0}, true},
		"garbage":      {[]byte("hello, is anybody there"), false},
		"empty":        {nil, false},
		"cut":          {binding[:len(binding)-1], false},
		"other":        {binding, true},
	} {
		if got := mayRead(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
