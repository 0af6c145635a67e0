package webrtc

import (
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/calls"
)

const plainSDP = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 AA:BB\r\n" +
	"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=max-message-size:262144\r\n"

func wire(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignalComesBack(t *testing.T) {
	in := &message{
		kind: calls.Offer, id: callID{1, 2}, sdp: plainSDP,
		candidates: []string{"candidate:1 1 udp 2130706431 192.0.2.1 4100 typ host"},
	}
	b, err := in.encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := decode(b, networks)
	if err != nil {
		t.Fatal(err)
	}
	if out.kind != in.kind || out.id != in.id || out.sdp != in.sdp || len(out.candidates) != 1 || out.largest != maxMessage {
		t.Errorf("%+v came back as %+v", in, out)
	}
}

// Candidates at addresses that are not the device's to give are passed over,
// wherever they stand. fault: E8
func TestCandidatesThatMayBeDialled(t *testing.T) {
	for c, want := range map[string]bool{
		"candidate:1 1 udp 1 192.0.2.1 4100 typ host":                                  true,
		"candidate:1 1 UDP 1 2001:db8::1 4100 typ srflx raddr 0.0.0.0 rport 0":         true,
		"candidate:1 1 tcp 1 192.0.2.1 4100 typ host tcptype passive":                  true,
		"candidate:1 1 udp 1 127.0.0.1 4100 typ host":                                  false,
		"candidate:1 1 udp 1 ::ffff:127.0.0.1 4100 typ host":                           false,
		"candidate:1 1 udp 1 ::1 4100 typ host":                                        false,
		"candidate:1 1 udp 1 224.0.0.251 5353 typ host":                                false,
		"candidate:1 1 udp 1 255.255.255.255 4100 typ host":                            false,
		"candidate:1 1 udp 1 0.0.0.0 4100 typ host":                                    false,
		"candidate:1 1 udp 1 192.0.2.1 0 typ host":                                     false,
		"candidate:1 1 udp 1 192.0.2.1 65536 typ host":                                 false,
		"candidate:1 1 udp 1 fe80::1%eth0 4100 typ host":                               false,
		"candidate:1 1 udp 1 db.internal 5432 typ host":                                false,
		"candidate:1 1 udp 1 0a1b2c3d-0000-4000-8000-000000000000.local 4100 typ host": false,
		"candidate:1 1 sctp 1 192.0.2.1 4100 typ host":                                 false,
		"candidate:1 1 udp 1 192.0.2.1 4100":                                           false,
		"1 1 udp 1 192.0.2.1 4100 typ host":                                            false,
		"candidate:1 1 udp 1 192.0.2.1 4100 typ host\r\na=fingerprint:sha-256 00":      false,
	} {
		inSDP := plainSDP + "a=" + c + "\r\n"
		for name, v := range map[string]map[string]any{
			"list": {"k": 19, "i": make([]byte, 16), "c": []string{c}},
			"sdp":  {"k": 16, "i": make([]byte, 16), "s": inSDP},
		} {
			if name == "sdp" && strings.Contains(c, "\r\n") {
				continue
			}
			m, err := decode(wire(t, v), networks)
			if err != nil {
				t.Errorf("%s %q: %v", name, c, err)
				continue
			}
			if got := len(m.candidates) == 1; got != want {
				t.Errorf("%s %q: taken %v, want %v", name, c, got, want)
			}
			if strings.Contains(m.sdp, "candidate") {
				t.Errorf("%q stays in the description", c)
			}
		}
	}
	if !mayDial("candidate:1 1 udp 1 127.0.0.1 4100 typ host", loopback) {
		t.Error("loopback is refused where it is asked for")
	}
}

// fault: E2
func TestSignalsThatAreRefused(t *testing.T) {
	id := make([]byte, 16)
	offer := func(sdp string) map[string]any { return map[string]any{"k": 16, "i": id, "s": sdp} }
	for name, v := range map[string]any{
		"no kind":            map[string]any{"i": id},
		"no id":              map[string]any{"k": 16, "s": plainSDP},
		"short id":           map[string]any{"k": 16, "i": id[:8], "s": plainSDP},
		"no map":             []any{16, id},
		"no description":     map[string]any{"k": 16, "i": id},
		"long description":   offer(plainSDP + strings.Repeat("a=x\r\n", 1000)),
		"many candidates":    map[string]any{"k": 19, "i": id, "c": make([]string, maxCandidates+1)},
		"long candidate":     map[string]any{"k": 19, "i": id, "c": []string{strings.Repeat("x", maxCandidateLen+1)}},
		"long reason":        map[string]any{"k": 18, "i": id, "r": strings.Repeat("x", calls.MaxReason+1)},
		"two sections":       offer(plainSDP + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"),
		"audio":              offer(plainSDP + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"),
		"no fingerprint":     offer(strings.ReplaceAll(plainSDP, "a=fingerprint", "a=foo")),
		"a weak fingerprint": offer(strings.ReplaceAll(plainSDP, "sha-256", "sha-1")),
		"tiny messages":      offer(strings.ReplaceAll(plainSDP, "262144", "10")),
		"a control sign":     offer(plainSDP + "a=x\x00y\r\n"),
		"too long":           map[string]any{"k": 19, "i": id, "x": make([]byte, calls.MaxSignal)},
	} {
		if m, err := decode(wire(t, v), networks); err == nil {
			t.Errorf("%s: taken as %+v", name, m)
		}
	}
	twice := append([]byte{0x83, 0xa1, 'k', 16, 0xa1, 'k', 17, 0xa1, 'i', 0xc4, 16}, id...)
	if _, err := decode(twice, networks); err == nil {
		t.Error("a key given twice is taken")
	}
	if _, err := decode(append(wire(t, map[string]any{"k": 18, "i": id}), 0), networks); err == nil {
		t.Error("bytes after the signal are taken")
	}
}

func FuzzSignal(f *testing.F) {
	id := make([]byte, 16)
	f.Add(wire(f, map[string]any{"k": 16, "i": id, "s": plainSDP + "a=candidate:1 1 udp 1 192.0.2.1 4100 typ host\r\n"}))
	f.Add(wire(f, map[string]any{"k": 19, "i": id, "c": []string{"candidate:1 1 udp 1 192.0.2.1 4100 typ host"}}))
	f.Add(wire(f, map[string]any{"k": 18, "i": id, "r": "no"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b, networks)
		if err != nil {
			return
		}
		if len(m.candidates) > maxCandidates || len(m.sdp) > 2*maxDescription || len(m.reason) > calls.MaxReason {
			t.Fatalf("past its bounds: %+v", m)
		}
		for _, c := range m.candidates {
			if !mayDial(c, networks) {
				t.Fatalf("candidate %q was taken", c)
			}
		}
		again, err := m.encode()
		if err != nil {
			return // a description that grew by its line ends
		}
		back, err := decode(again, networks)
		if err != nil {
			return // the same, past the bound
		}
		if back.kind != m.kind || back.id != m.id || back.sdp != m.sdp && m.sdp != "" && (m.kind == calls.Offer || m.kind == calls.Answer) {
			t.Fatalf("%+v came back as %+v", m, back)
		}
	})
}
