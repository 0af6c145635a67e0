package multiplex

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"peerlink/channel"
	"peerlink/internal/packed"
)

// vector is one frame of testdata/vectors.json, which docs/protocol.md names.
type vector struct {
	Name, Comment, Wire string
	Channel             channel.ID
	DecodeOnly          bool
	Hello               *struct {
		Version  int
		Features uint64
	}
	Beacon *struct {
		Nonce  uint64
		Answer bool
	}
	Credit []struct {
		Channel channel.ID
		Bytes   int
	}
	Ask *struct {
		Above int
	}
	Unused, Need []struct {
		Channel channel.ID
		Bytes   int
	}
	Reset *struct {
		Channel channel.ID
		Code    channel.Code
	}
	GoingAway *struct {
		Code     channel.Code
		Reason   string
		Draining bool
	}
	Request *struct {
		Name             string
		Channel          channel.ID
		Answer, Accepted bool
		Window           int
		Reason           string
		Code             channel.Code
	}
	Data *string
}

// body is what the package would write, and message and request what it must read.
func (v vector) body(t *testing.T) (body []byte, m message, q request) {
	t.Helper()
	switch {
	case v.Hello != nil:
		m = message{kind: 'v', version: v.Hello.Version, features: v.Hello.Features}
		body = encodeHello(m.version, m.features)
	case v.Beacon != nil:
		m = message{kind: 'p', nonce: v.Beacon.Nonce, answer: v.Beacon.Answer}
		body = encodeBeacon(m.nonce, m.answer)
	case v.Credit != nil:
		m = message{kind: 'w'}
		var ns []uint64
		for _, g := range v.Credit {
			m.grants = append(m.grants, grant{g.Channel, g.Bytes})
			ns = append(ns, uint64(g.Channel), uint64(g.Bytes))
		}
		if body = encodeNumbers("w", ns...); len(v.Credit) == 1 {
			body = encodeGrant(v.Credit[0].Channel, v.Credit[0].Bytes)
		}
	case v.Ask != nil:
		m = message{kind: 'b', above: v.Ask.Above}
		body = encodeAsk(m.above)
	case v.Unused != nil, v.Need != nil:
		m = message{kind: 'u'}
		if v.Need != nil {
			m.kind = 'n'
		}
		var ns []uint64
		for _, g := range append(v.Unused, v.Need...) {
			m.grants = append(m.grants, grant{g.Channel, g.Bytes})
			ns = append(ns, uint64(g.Channel), uint64(g.Bytes))
		}
		body = encodeNumbers(string(m.kind), ns...)
	case v.Reset != nil:
		m = message{kind: 'x', id: v.Reset.Channel, code: v.Reset.Code}
		body = encodeReset(m.id, m.code)
	case v.GoingAway != nil:
		m = message{kind: 'g', code: v.GoingAway.Code, reason: v.GoingAway.Reason}
		body = encodeGoingAway(m.code, m.reason)
		if m.draining = v.GoingAway.Draining; m.draining {
			body = encodeDraining(m.code, m.reason)
		}
	case v.Request != nil:
		r := v.Request
		q = request{name: r.Name, id: r.Channel, answer: r.Answer, accepted: r.Accepted, window: r.Window, reason: r.Reason, code: r.Code}
		body = q.encode()
	case v.Data != nil:
		b, err := hex.DecodeString(*v.Data)
		if err != nil {
			t.Fatal(err)
		}
		body = b
	default:
		t.Fatal("a vector of nothing")
	}
	return body, m, q
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Comment string
		Vectors []vector
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file.Vectors
}

func (v vector) wire(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(v.Wire, " ", ""))
	if err != nil || len(b) < headerLen {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

func TestGoldenVectorsAreWrittenAndRead(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			wire := v.wire(t)
			id, n := parseHeader(wire)
			if id != v.Channel || n != len(wire)-headerLen {
				t.Fatalf("header says channel %d, %d bytes of %d", id, n, len(wire)-headerLen)
			}
			body, m, q := v.body(t)
			if got := frameOf(id, body); !v.DecodeOnly && !bytes.Equal(got, wire) {
				t.Errorf("written as % x", got)
			}
			r := packed.NewReader(wire[headerLen:])
			switch id {
			case controlID:
				if got, err := decodeRequest(r); got != q || err != nil || r.Len() != 0 {
					t.Errorf("read as %+v, %v", got, err)
				}
			case protocolID:
				if got, err := decodeMessage(r); !reflect.DeepEqual(got, m) || err != nil || r.Len() != 0 {
					t.Errorf("read as %+v, %v", got, err)
				}
			default:
				if !bytes.Equal(wire[headerLen:], body) {
					t.Errorf("body % x", body)
				}
			}
		})
	}
}

// encodeMessage writes what decodeMessage read.
func encodeMessage(m message) []byte {
	switch m.kind {
	case 'v':
		return encodeHello(m.version, m.features)
	case 'p':
		return encodeBeacon(m.nonce, m.answer)
	case 'w', 'u', 'n':
		ns := []uint64{}
		for _, g := range m.grants {
			ns = append(ns, uint64(g.id), uint64(g.n))
		}
		return encodeNumbers(string(m.kind), ns...)
	case 'b':
		return encodeAsk(m.above)
	case 'x':
		return encodeReset(m.id, m.code)
	case 'g':
		if m.draining {
			return encodeDraining(m.code, m.reason)
		}
		return encodeGoingAway(m.code, m.reason)
	default:
		return []byte{0x80}
	}
}

// fault: A1, A2, A5
func FuzzProtocol(f *testing.F) {
	for _, v := range vectors(f) {
		if v.Channel == protocolID {
			f.Add(v.wire(f)[headerLen:])
		}
	}
	f.Add([]byte{0x81, 0xa1, 'w', 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x82, 0xa1, 'x', 0x93, 1, 2, 3, 0xa1, 'x', 0xc0})
	f.Add(append(append([]byte{0x81, 0xa1, 'z'}, bytes.Repeat([]byte{0x91}, 64)...), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := packed.NewReader(b)
		for r.Len() > 0 {
			m, err := decodeMessage(r)
			if err != nil {
				if !errors.Is(err, packed.ErrMalformed) {
					t.Fatalf("error of another kind: %v", err)
				}
				return
			}
			again, err := decodeMessage(packed.NewReader(encodeMessage(m)))
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%+v is written and read as %+v, %v", m, again, err)
			}
		}
	})
}
