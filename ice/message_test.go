package ice

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/calls"
)

func sampleOffer() *message {
	m := &message{kind: calls.Offer}
	for i := range m.id {
		m.id[i] = byte(i)
	}
	m.tcp = &tcpPart{candidates: []candidate{
		{hostCandidate, netip.MustParseAddrPort("192.0.2.1:4100")},
		{srflxCandidate, netip.MustParseAddrPort("[2001:db8::1]:4100")},
	}}
	for i := range m.tcp.key {
		m.tcp.key[i] = byte(0x40 + i)
	}
	m.udp = &udpPart{ufrag: "abcd", password: "ABCDEFGHIJKLMNOPQRSTUV", candidates: []candidate{
		{hostCandidate, netip.MustParseAddrPort("192.0.2.1:5200")},
	}}
	return m
}

const (
	goldenOffer = "84a16b01a169c410000102030405060708090a0b0c0d0e0fa374637082a173c420" +
		"404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f" +
		"a1639293" + "00a93139322e302e322e31cd1004" + "9301ab323030313a6462383a3a31cd1004" +
		"a375647083a175a461626364a170b64142434445464748494a4b4c4d4e4f50515253545556" +
		"a1639193" + "00a93139322e302e322e31cd1450"
	goldenRefusal = "84a16b03a169c410000102030405060708090a0b0c0d0e0fa172a462757379a16503"
)

func TestMessagesHaveTheDocumentedBytes(t *testing.T) {
	offer := sampleOffer()
	refusal := &message{kind: calls.Refusal, id: offer.id, code: calls.CodeBusy, reason: "busy"}
	for want, m := range map[string]*message{goldenOffer: offer, goldenRefusal: refusal} {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s:\n got %s\nwant %s", m.kind, got, want)
		}
		back, err := decode(b, false)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%s: read back %+v, %v", m.kind, back, err)
		}
	}
}

func TestAnAnswerNeverCarriesTheKey(t *testing.T) {
	m := sampleOffer()
	m.kind = calls.Answer
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, m.tcp.key[:]) {
		t.Error("the key of the checks is in the answer")
	}
}

func pack(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.SetSortMapKeys(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fault: A1, A2
func TestMalformedMessagesAreRefused(t *testing.T) {
	id, key := make([]byte, 16), bytes.Repeat([]byte{1}, 32)
	cands := []any{[]any{0, "192.0.2.1", 1}}
	udp := func(u, p string) map[string]any {
		return map[string]any{"k": 1, "i": id, "udp": map[string]any{"u": u, "p": p, "c": cands}}
	}
	for name, in := range map[string][]byte{
		"empty":           {},
		"not a map":       pack(t, []int{1}),
		"no kind":         pack(t, map[string]any{"i": id}),
		"no id":           pack(t, map[string]any{"k": 1}),
		"short id":        pack(t, map[string]any{"k": 1, "i": id[:15]}),
		"long id":         pack(t, map[string]any{"k": 1, "i": append(id, 0)}),
		"id as text":      pack(t, map[string]any{"k": 1, "i": string(id)}),
		"kind as text":    pack(t, map[string]any{"k": "offer", "i": id}),
		"long reason":     pack(t, map[string]any{"k": 3, "i": id, "r": strings.Repeat("a", calls.MaxReason+1)}),
		"offer, no key":   pack(t, map[string]any{"k": 1, "i": id, "tcp": map[string]any{"c": cands}}),
		"short key":       pack(t, map[string]any{"k": 1, "i": id, "tcp": map[string]any{"s": key[1:]}}),
		"host name":       pack(t, map[string]any{"k": 2, "i": id, "tcp": map[string]any{"c": []any{[]any{0, "example.com", 1}}}}),
		"port 65536":      pack(t, map[string]any{"k": 2, "i": id, "tcp": map[string]any{"c": []any{[]any{0, "192.0.2.1", 65536}}}}),
		"two elements":    pack(t, map[string]any{"k": 2, "i": id, "tcp": map[string]any{"c": []any{[]any{0, "192.0.2.1"}}}}),
		"no credentials":  pack(t, map[string]any{"k": 1, "i": id, "udp": map[string]any{"c": cands}}),
		"short password":  pack(t, udp("abcd", "short")),
		"colon":           pack(t, udp("ab:d", "ABCDEFGHIJKLMNOPQRSTUV")),
		"trailing bytes":  append(pack(t, map[string]any{"k": 3, "i": id}), 0),
		"key twice":       append([]byte{0x83}, bytes.Repeat(pack(t, map[string]any{"k": 3})[1:], 3)...),
		"4 GiB announced": append([]byte{0x82, 0xa1, 'k', 1, 0xa1, 'i', 0xc6, 0xff, 0xff, 0xff, 0xff}, id...),
		"too long":        pack(t, map[string]any{"k": 3, "i": id, "z": make([]byte, calls.MaxSignal)}),
	} {
		if m, err := decode(in, true); err == nil {
			t.Errorf("%s: read %+v", name, m)
		}
	}
}

func TestUnknownKeysKindsAndElementsArePassedOver(t *testing.T) {
	id := make([]byte, 16)
	in := pack(t, map[string]any{
		"k": 9, "i": id, "zz": []any{map[string]any{"a": 1}, nil, 2.5},
		"tcp": map[string]any{"x": true, "c": []any{
			[]any{0, "192.0.2.1", 4100, "more", []int{1}},
			[]any{200, "192.0.2.2", 4100},
		}},
	})
	m, err := decode(in, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.kind+firstKind != 9 || len(m.tcp.candidates) != 1 || m.udp != nil {
		t.Errorf("read %+v", m)
	}
}

// fault: E8
func TestCandidatesOfAStrangerAreFiltered(t *testing.T) {
	for text, want := range map[string]struct{ remote, loopback bool }{
		"192.0.2.1:1":          {true, true},
		"10.1.2.3:65535":       {true, true},
		"[2001:db8::1]:80":     {true, true},
		"[fd00::1]:80":         {true, true},
		"[fe80::1%eth0]:80":    {true, true},
		"127.0.0.1:80":         {false, true},
		"[::1]:80":             {false, true},
		"[::ffff:127.0.0.1]:9": {false, true},
		"192.0.2.1:0":          {false, false},
		"0.0.0.0:80":           {false, false},
		"[::]:80":              {false, false},
		"224.0.0.1:80":         {false, false},
		"239.255.255.250:1900": {false, false},
		"[ff02::1]:80":         {false, false},
		"255.255.255.255:80":   {false, false},
		"169.254.169.254:80":   {false, false},
		"[fe80::1]:80":         {false, false},
		"[2001:db8::1%eth0]:1": {false, false},
	} {
		ap := netip.MustParseAddrPort(text)
		in := pack(t, map[string]any{"k": 2, "i": make([]byte, 16), "tcp": map[string]any{
			"c": []any{[]any{0, ap.Addr().String(), ap.Port()}},
		}})
		for _, loopback := range []bool{false, true} {
			m, err := decode(in, loopback)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			expect := want.remote
			if loopback {
				expect = want.loopback
			}
			if got := len(m.tcp.candidates) == 1; got != expect {
				t.Errorf("%s with loopback %v: taken %v", text, loopback, got)
			}
		}
	}
}

// fault: F5
func TestALongListOfCandidatesIsCut(t *testing.T) {
	var list []any
	for i := range 300 {
		list = append(list, []any{0, fmt.Sprintf("10.0.%d.%d", i/256, i%256), 9})
	}
	id := make([]byte, 16)
	m, err := decode(pack(t, map[string]any{"k": 2, "i": id, "tcp": map[string]any{"c": list}}), false)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.tcp.candidates); n != candidatesPerEngine {
		t.Errorf("%d candidates", n)
	}
}

func TestHostCandidatesAreOrderedAndFitTheSocket(t *testing.T) {
	var addrs []netip.Addr
	for _, a := range []string{"2001:db8::1", "192.0.2.1", "::1", "127.0.0.1", "192.0.2.1", "fe80::1"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	for _, c := range []struct {
		loopback, v6 bool
		want         string
	}{
		{true, true, "[host 127.0.0.1:7 host [::1]:7 host 192.0.2.1:7 host [2001:db8::1]:7]"},
		{false, true, "[host 192.0.2.1:7 host [2001:db8::1]:7]"},
		{false, false, "[host 192.0.2.1:7]"},
	} {
		if got := fmt.Sprint(hostCandidates(addrs, 7, c.loopback, c.v6)); got != c.want {
			t.Errorf("loopback %v, v6 %v: %s, want %s", c.loopback, c.v6, got, c.want)
		}
	}
}

func TestInterfaceAddressesAreListed(t *testing.T) {
	addrs, err := hostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IsLinkLocalUnicast() || a.Is4In6() {
			t.Errorf("listed %s", a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{goldenOffer, goldenRefusal} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add(pack(f, map[string]any{"k": 9, "i": make([]byte, 16), "zz": []any{1, nil, map[string]any{"a": 2.5}}}), false)
	f.Fuzz(func(t *testing.T, b []byte, loopback bool) {
		m, err := decode(b, loopback)
		if err != nil {
			return
		}
		if m.candidates() > maxCandidates || len(m.reason) > calls.MaxReason {
			t.Fatalf("bounds passed: %+v", m)
		}
		for _, p := range [][]candidate{m.tcpCandidates(), m.udpCandidates()} {
			for _, c := range p {
				if err := checkCandidate(c, loopback); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, err := m.encode()
		if err != nil || len(again) > calls.MaxSignal {
			t.Fatalf("%d bytes, %v", len(again), err)
		}
		back, err := decode(again, loopback)
		if err != nil {
			t.Fatal(err)
		}
		third, err := back.encode()
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%x then %x, %v", again, third, err)
		}
	})
}
