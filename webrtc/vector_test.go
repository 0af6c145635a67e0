package webrtc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/calls"
)

var update = flag.Bool("update", false, "make new test vectors")

const vectorFile = "testdata/vectors.json"

// hexBytes is a byte string in hex, as the vectors write it.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vectors is testdata/vectors.json. Signatures with P-256 differ each time they
// are made, so these are read; all else is made again and compared.
type vectors struct {
	Comment string                  `json:"comment"`
	At      int64                   `json:"unix_milli"`
	Devices map[string]vectorDevice `json:"devices"`
	Signals []vectorSignal          `json:"signals"`
	Proofs  []vectorProof           `json:"proofs"`
	Stream  []vectorStream          `json:"stream"`
	Refused vectorRefused           `json:"refused"`
}

type vectorDevice struct {
	PEM    string            `json:"pem"`
	Key    hexBytes          `json:"device_key_pkcs8"`
	Device identity.DeviceID `json:"device_id"`
	Chain  []hexBytes        `json:"chain"`
}

// vectorSignal is a message and what a reader makes of it: candidates that may
// be dialled, those of the description included, and how long messages may be.
type vectorSignal struct {
	Name       string   `json:"name"`
	DecodeOnly bool     `json:"decode_only,omitempty"`
	Wire       hexBytes `json:"wire"`
	Kind       uint8    `json:"kind"`
	ID         hexBytes `json:"call"`
	SDP        string   `json:"sdp,omitempty"`
	Candidates []string `json:"candidates,omitempty"`
	Taken      []string `json:"taken,omitempty"`
	Reason     string   `json:"reason,omitempty"`
	Code       uint32   `json:"code,omitempty"`
	Largest    int      `json:"max_message,omitempty"`
}

// vectorProof is the beginning of a channel, in the order in which each side
// sends: hello, signature, verdict.
type vectorProof struct {
	Caller      vectorSide `json:"caller"`
	Callee      vectorSide `json:"callee"`
	Verdict     string     `json:"verdict"`
	VerdictText bool       `json:"verdict_is_text_message"`
	Refusal     string     `json:"refusal"`
}

type vectorSide struct {
	Device    string   `json:"device"`
	PrintText string   `json:"fingerprint_text"`
	Print     hexBytes `json:"fingerprint"`
	Nonce     hexBytes `json:"nonce"`
	Hello     hexBytes `json:"hello"`
	Statement hexBytes `json:"statement"`
	Sign      hexBytes `json:"signed_bytes"`
	Signature hexBytes `json:"signature"`
}

// vectorStream is a sequence of messages after the proof, and what it says.
type vectorStream struct {
	Name     string          `json:"name"`
	Messages []vectorMessage `json:"messages"`
	Bytes    hexBytes        `json:"bytes"`
	Ended    bool            `json:"clean_end"`
}

type vectorMessage struct {
	Text   string   `json:"text,omitempty"`
	Binary hexBytes `json:"binary,omitempty"`
}

type vectorRefused struct {
	Signals []vectorBad `json:"signals"`
	Hellos  []vectorBad `json:"hellos"`
}

type vectorBad struct {
	Name string   `json:"name"`
	Wire hexBytes `json:"wire"`
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vectors) identity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Decode([]byte(v.Devices[name].PEM))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// must is for what makes vectors.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func makeDevice(id *identity.Identity) vectorDevice {
	text := must(id.Encode())
	d := vectorDevice{PEM: string(text), Device: id.DeviceID()}
	for _, c := range id.Peer().Chain() {
		d.Chain = append(d.Chain, c)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "PEERLINK DEVICE KEY" {
			d.Key = b.Bytes
		}
	}
	return d
}

const vectorSDP = "v=0\r\no=- 8423971 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n" +
	"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlgf\r\n" +
	"a=ice-options:trickle\r\na=fingerprint:sha-256 %s\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"

const vectorHost = "candidate:1 1 udp 2122260223 192.0.2.7 54321 typ host"

func makeSignals() (out []vectorSignal) {
	id := callID(bytes.Repeat([]byte{0x1d}, 16))
	sdp := fmt.Sprintf(vectorSDP, printText(bytes.Repeat([]byte{0xca}, 32)))
	reflexive := "candidate:2 1 udp 1686052607 198.51.100.9 54321 typ srflx raddr 0.0.0.0 rport 0"
	mdns := "candidate:3 1 udp 2122260223 0fd95bd7-7a5e-4a3b-8f0c-1f1e2b3c4d5e.local 40000 typ host"
	for _, s := range []struct {
		name  string
		m     message
		taken []string
	}{
		{"offer", message{kind: calls.Offer, id: id, sdp: sdp, candidates: []string{vectorHost, mdns}}, []string{vectorHost}},
		{"answer", message{kind: calls.Answer, id: id, sdp: strings.Replace(sdp, "actpass", "active", 1), candidates: []string{vectorHost}}, []string{vectorHost}},
		{"answer without candidates yet", message{kind: calls.Answer, id: id, sdp: strings.Replace(sdp, "262144", "16384", 1)}, nil},
		{"refusal", message{kind: calls.Refusal, id: id, reason: "not now"}, nil},
		{"refusal for want of room", message{kind: calls.Refusal, id: id, code: calls.CodeBusy, reason: "busy"}, nil},
		{"withdrawal, by the caller", message{kind: calls.Refusal, id: id, code: calls.CodeWithdrawn, reason: "withdrawn"}, nil},
		{"candidates", message{kind: calls.More, id: id, candidates: []string{reflexive, vectorHost}}, []string{reflexive, vectorHost}},
	} {
		v := vectorSignal{
			Name: s.name, Wire: must(s.m.encode()), Kind: firstKind + uint8(s.m.kind), ID: s.m.id[:], SDP: s.m.sdp,
			Candidates: s.m.candidates, Taken: s.taken, Reason: s.m.reason, Code: uint32(s.m.code),
		}
		if s.m.sdp != "" {
			v.Largest = maxMessage
		}
		if strings.Contains(s.m.sdp, ":16384") {
			v.Largest = 16384
		}
		out = append(out, v)
	}
	inside := sdp + "a=" + vectorHost + "\r\na=end-of-candidates\r\n"
	odd := must(msgpack.Marshal(map[string]any{"new": []any{1, "x"}, "s": inside, "i": id[:], "k": uint32(16)}))
	return append(out, vectorSignal{
		Name: "offer of another order, with its candidate in the description and a key of a later version", DecodeOnly: true,
		Wire: odd, Kind: 16, ID: id[:], SDP: inside, Taken: []string{vectorHost}, Largest: maxMessage,
	})
}

// printText is a fingerprint as session descriptions and browsers write it.
func printText(b []byte) string {
	var out []string
	for _, c := range b {
		out = append(out, fmt.Sprintf("%02X", c))
	}
	return strings.Join(out, ":")
}

func makeProof(from, to string, ids map[string]*identity.Identity) vectorProof {
	side := func(name string, r role) (vectorSide, party) {
		p := party{device: ids[name].DeviceID(), print: fingerprint(bytes.Repeat([]byte{0xc0 + byte(r)}, 32))}
		copy(p.nonce[:], bytes.Repeat([]byte{byte(r), byte(len(name))}, nonceLen/2))
		return vectorSide{
			Device: name, PrintText: printText(p.print[:]), Print: p.print[:], Nonce: p.nonce[:],
			Hello: must(encodeHello(p.nonce, ids[name].Peer().Chain())),
		}, p
	}
	a, pa := side(from, caller)
	b, pb := side(to, callee)
	for _, s := range []struct {
		v *vectorSide
		r role
	}{{&a, caller}, {&b, callee}} {
		s.v.Statement = statement(s.r, pa, pb)
		s.v.Sign = append([]byte("peerlink/"+proofPurpose+"\x00"), s.v.Statement...)
		s.v.Signature = must(ids[s.v.Device].Sign(proofPurpose, s.v.Statement))
	}
	return vectorProof{Caller: a, Callee: b, Verdict: verdictOK, VerdictText: true, Refusal: verdictNo + "not trusted\n6"}
}

func makeStreams() []vectorStream {
	hello := []byte{0, 7, 0xff, 0xff, 0x82, 0xa1, 0x76, 2, 0xa1, 0x66, 0}
	return []vectorStream{
		{"one message", []vectorMessage{{Binary: hello}}, hello, false},
		{"cut anywhere", []vectorMessage{{Binary: hello[:1]}, {Binary: hello[1:5]}, {Binary: hello[5:]}, {Text: endMark}}, hello, true},
		{"text that means nothing", []vectorMessage{{Text: "new"}, {Binary: hello}, {Text: "END"}, {Text: endMark}, {Binary: hello}}, hello, true},
	}
}

func makeRefused(ids map[string]*identity.Identity) (r vectorRefused) {
	id := bytes.Repeat([]byte{0x1d}, 16)
	sdp := fmt.Sprintf(vectorSDP, printText(bytes.Repeat([]byte{0xca}, 32)))
	signal := func(name string, m map[string]any) {
		r.Signals = append(r.Signals, vectorBad{name, must(msgpack.Marshal(m))})
	}
	signal("without a kind", map[string]any{"i": id})
	signal("without a call id", map[string]any{"k": 18})
	signal("with a call id of 15 bytes", map[string]any{"k": 18, "i": id[1:]})
	signal("with text for the call id", map[string]any{"k": 18, "i": string(id)})
	signal("with 17 candidates", map[string]any{"k": 19, "i": id, "c": slices.Repeat([]string{vectorHost}, 17)})
	signal("with a section for sound", map[string]any{"k": 16, "i": id, "s": sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"})
	signal("without a fingerprint", map[string]any{"k": 16, "i": id, "s": strings.Replace(sdp, "a=fingerprint", "a=thumb", 1)})
	signal("with a SHA-1 fingerprint", map[string]any{"k": 16, "i": id, "s": strings.Replace(sdp, "sha-256", "sha-1", 1)})
	signal("with messages of at most 1023 bytes", map[string]any{"k": 16, "i": id, "s": strings.Replace(sdp, "262144", "1023", 1)})
	r.Signals = append(r.Signals, vectorBad{"with a key given twice", append([]byte{0x83, 0xa1, 'k', 18, 0xa1, 'k', 18, 0xa1, 'i', 0xc4, 16}, id...)})
	r.Signals = append(r.Signals, vectorBad{"with bytes after it", append(must((&message{kind: calls.Refusal}).encode()), 0xc0)})

	alice := ids["alice"].Peer().Chain()
	nonce := make([]byte, nonceLen)
	hello := func(name string, values ...any) {
		r.Hellos = append(r.Hellos, vectorBad{name, must(msgpack.Marshal(values))})
	}
	hello("of version 2", uint8(2), nonce, alice)
	hello("with a nonce of 31 bytes", uint8(1), nonce[1:], alice)
	hello("without a chain", uint8(1), nonce)
	hello("with one certificate", uint8(1), nonce, alice[:1])
	hello("with four certificates", uint8(1), nonce, [][]byte{alice[0], alice[1], alice[1], alice[1]})
	hello("with a certificate of 2049 bytes", uint8(1), nonce, [][]byte{make([]byte, identity.MaxCertLen+1), alice[1]})
	hello("with another account's certificate", uint8(1), nonce, [][]byte{alice[0], ids["bob"].Peer().Chain()[1]})
	return r
}

func makeVectors(t *testing.T) {
	ids := map[string]*identity.Identity{
		"alice": must(identity.Generate("alice's laptop")),
		"bob":   must(identity.New("bob's browser", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))),
	}
	v := vectors{
		Comment: "What goes between two devices over WebRTC (docs/protocol.md). Bytes are in hexadecimal. alice's keys are Ed25519, " +
			"bob's P-256. Check chains at unix_milli.",
		At: time.Now().UnixMilli(), Devices: map[string]vectorDevice{},
		Signals: makeSignals(), Stream: makeStreams(), Refused: makeRefused(ids),
		Proofs: []vectorProof{makeProof("alice", "bob", ids), makeProof("bob", "alice", ids)},
	}
	for name, id := range ids {
		v.Devices[name] = makeDevice(id)
	}
	b := must(json.MarshalIndent(v, "", "  "))
	if err := os.WriteFile(vectorFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The vectors bind other implementations: what changes here changes the protocol.
func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	v := readVectors(t)
	if len(v.Signals) < 7 || len(v.Proofs) != 2 || len(v.Stream) != 3 {
		t.Fatalf("%d signals, %d proofs, %d streams", len(v.Signals), len(v.Proofs), len(v.Stream))
	}
	for name, d := range v.Devices {
		if got := makeDevice(v.identity(t, name)); got.Device != d.Device || !bytes.Equal(got.Key, d.Key) {
			t.Errorf("%s is %s", name, got.Device)
		}
	}
	for _, s := range v.Signals {
		t.Run("signal "+s.Name, func(t *testing.T) { checkSignal(t, s) })
	}
	for _, p := range v.Proofs {
		t.Run("proof of "+p.Caller.Device, func(t *testing.T) { checkProof(t, v, p) })
	}
	for _, s := range v.Stream {
		t.Run("stream "+s.Name, func(t *testing.T) { checkStream(t, s) })
	}
}

func checkSignal(t *testing.T, v vectorSignal) {
	m, err := decode(v.Wire, networks)
	if err != nil || firstKind+uint8(m.kind) != v.Kind || !bytes.Equal(m.id[:], v.ID) || m.reason != v.Reason || uint32(m.code) != v.Code || m.largest != v.Largest {
		t.Fatalf("%+v, %v", m, err)
	}
	if !slices.Equal(m.candidates, v.Taken) {
		t.Errorf("candidates %q, want %q", m.candidates, v.Taken)
	}
	if v.DecodeOnly {
		return
	}
	again := &message{kind: calls.Kind(v.Kind - firstKind), id: callID(v.ID), sdp: v.SDP, candidates: v.Candidates, reason: v.Reason, code: calls.Code(v.Code)}
	if b, err := again.encode(); err != nil || !bytes.Equal(b, v.Wire) {
		t.Errorf("written as %x, %v", b, err)
	}
}

func checkProof(t *testing.T, v vectors, p vectorProof) {
	parties := make(map[role]party)
	peers := make(map[role]identity.Peer)
	for r, s := range map[role]vectorSide{caller: p.Caller, callee: p.Callee} {
		nonce, chain, err := decodeHello(s.Hello)
		if err != nil || !bytes.Equal(nonce[:], s.Nonce) {
			t.Fatalf("hello of the %s: %v", r, err)
		}
		if peers[r], err = identity.VerifyChain(chain, time.UnixMilli(v.At)); err != nil || peers[r].Device != v.Devices[s.Device].Device {
			t.Fatalf("%s is %v, %v", r, peers[r], err)
		}
		parties[r] = party{peers[r].Device, fingerprint(s.Print), nonce}
		if b, err := encodeHello(nonce, v.identity(t, s.Device).Peer().Chain()); err != nil || !bytes.Equal(b, s.Hello) {
			t.Errorf("hello of the %s is written as %x, %v", r, b, err)
		}
		if printText(s.Print) != s.PrintText {
			t.Errorf("fingerprint %s", printText(s.Print))
		}
	}
	for r, s := range map[role]vectorSide{caller: p.Caller, callee: p.Callee} {
		st := statement(r, parties[caller], parties[callee])
		if !bytes.Equal(st, s.Statement) || !bytes.Equal(s.Sign, append([]byte("peerlink/webrtc\x00"), st...)) {
			t.Errorf("the %s signs %x", r, st)
		}
		if err := peers[r].Verify(proofPurpose, st, s.Signature); err != nil {
			t.Errorf("%s: %v", r, err)
		}
		other := statement(r.other(), parties[caller], parties[callee])
		if peers[r].Verify(proofPurpose, other, s.Signature) == nil {
			t.Errorf("the proof of the %s serves the other as well", r)
		}
	}
	said := readRefusal(strings.TrimPrefix(p.Refusal, verdictNo))
	no, ok := errors.AsType[*calls.UnprovenRefusal](said)
	if p.Verdict != verdictOK || !ok || *no != (calls.UnprovenRefusal{Code: calls.CodeUnwanted, Reason: "not trusted"}) ||
		p.Refusal != verdictNo+refusal(identity.ErrBanned) {
		t.Errorf("verdicts %q and %q: %v", p.Verdict, p.Refusal, said)
	}
}

func checkStream(t *testing.T, v vectorStream) {
	near, far := newPipe()
	s := newStream(near, maxMessage, nil, nil, near.end, func() {})
	defer s.Close()
	go func() {
		for _, m := range v.Messages {
			data := []byte(m.Binary)
			if m.Text != "" {
				data = []byte(m.Text)
			}
			if _, err := far.WriteDataChannel(data, m.Text != ""); err != nil {
				t.Error(err)
			}
		}
	}()
	got := make([]byte, len(v.Bytes))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, v.Bytes) {
		t.Errorf("%x, %v; want %x", got, err, v.Bytes)
	}
	if !v.Ended {
		near.end()
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || (err == io.EOF) != v.Ended {
		t.Errorf("then %d bytes, %v; clean end: %v", n, err, v.Ended)
	}
}

// fault: A1, A2, D3
func TestVectorsOfWhatIsRefused(t *testing.T) {
	v := readVectors(t)
	for _, b := range v.Refused.Signals {
		if m, err := decode(b.Wire, networks); err == nil {
			t.Errorf("signal %s: %+v", b.Name, m)
		}
	}
	for _, b := range v.Refused.Hellos {
		_, chain, err := decodeHello(b.Wire)
		if err == nil {
			_, err = identity.VerifyChain(chain, time.UnixMilli(v.At))
		}
		if err == nil {
			t.Errorf("hello %s was taken", b.Name)
		}
	}
	if len(v.Refused.Signals) < 11 || len(v.Refused.Hellos) < 7 {
		t.Error("vectors are missing")
	}
}
