package multiplex

import (
	"fmt"

	"peerlink/channel"
	"peerlink/internal/escape"
	"peerlink/internal/packed"
)

// Versions of the protocol. A peer of version 1 has frames, ends and channel
// requests; version 2 adds the protocol channel: credit, resets, beacons and
// going away.
const (
	version1 = 1
	version2 = 2
)

// Messages of the protocol channel are msgpack maps; the first key says which
// one it is. Several may stand in one frame, none crosses frames. Keys that a
// decoder does not know are skipped with their values.
//
//	{"v":version, "f":features}    hello, the first frame of each side
//	{"p":nonce, "r":isAnswer}      beacon and its answer
//	{"w":[channel,bytes, …]}       credit: more bytes may be sent
//	{"b":bytes}                    ask: give back credit above that if nothing is to be sent
//	{"u":[channel,bytes, …]}       unused: so much of the credit is given back
//	{"n":[channel,bytes, …]}       need: a message of so many bytes waits for credit
//	{"x":[channel,code]}           reset: no more is read and, unless ended, sent
//	{"g":[code,reason]}            going away: this side closes the link
type message struct {
	kind     byte         // 'v', 'p', 'w', 'b', 'u', 'n', 'x', 'g'; 0: unknown
	version  int          // v
	features uint64       // v
	nonce    uint64       // p
	answer   bool         // p
	grants   []grant      // w, u, n
	above    int          // b
	id       channel.ID   // x
	code     channel.Code // x, g
	reason   string       // g
	draining bool         // of going away: channels may still end
}

type grant struct {
	id channel.ID
	n  int
}

const (
	maxMessageKeys = 16
	maxKeyLen      = 8
	maxGrants      = 32 // channels per credit message
)

func encodeHello(version int, features uint64) []byte {
	return encodeMap("v", uint64(version), "f", features)
}

func encodeBeacon(nonce uint64, answer bool) []byte { return encodeMap("p", nonce, "r", answer) }

func encodeNumbers(key string, vs ...uint64) []byte { return encodeMap(key, vs) }

func encodeGrant(id channel.ID, n int) []byte { return encodeNumbers("w", uint64(id), uint64(n)) }

func encodeAsk(above int) []byte { return encodeMap("b", uint64(above)) }

func encodeReset(id channel.ID, code channel.Code) []byte {
	return encodeNumbers("x", uint64(id), uint64(code))
}

func encodeGoingAway(code channel.Code, reason string) []byte {
	return encodeMap("g", []any{uint64(code), escape.Cap(reason, MaxReasonLen)})
}

func encodeDraining(code channel.Code, reason string) []byte {
	return encodeMap("g", []any{uint64(code), escape.Cap(reason, MaxReasonLen)}, "d", true)
}

// decodeMessage reads one message.
func decodeMessage(r *packed.Reader) (m message, err error) {
	n, err := r.Map(maxMessageKeys)
	if err != nil {
		return m, err
	}
	for i := range n {
		key, err := r.String(maxKeyLen)
		if err != nil {
			return m, err
		}
		if err := m.read(r, key, i == 0); err != nil {
			return m, fmt.Errorf("key %q: %w", key, err)
		}
	}
	return m, nil
}

// read reads the value of one key.
func (m *message) read(r *packed.Reader, key string, first bool) (err error) {
	if first {
		return m.readFirst(r, key)
	}
	switch string(m.kind) + key {
	case "vf":
		return number(r, 1<<64-1, &m.features)
	case "pr":
		m.answer, err = r.Bool()
	case "gd":
		m.draining, err = r.Bool()
	default:
		err = r.Skip()
	}
	return err
}

// readFirst reads the value of the first key.
func (m *message) readFirst(r *packed.Reader, key string) error {
	switch key {
	case "v", "p", "w", "b", "u", "n", "x", "g":
		m.kind = key[0]
	}
	switch m.kind {
	case 'v':
		return number(r, 1<<16, &m.version)
	case 'p':
		return number(r, 1<<64-1, &m.nonce)
	case 'w', 'u', 'n':
		return m.readGrants(r)
	case 'b':
		return number(r, maxWindow, &m.above)
	case 'x':
		return elements(r, 2, packed.MaxCount,
			func() error { return number(r, 0xffff, &m.id) },
			func() error { return number(r, 1<<32-1, &m.code) })
	case 'g':
		return elements(r, 2, packed.MaxCount,
			func() error { return number(r, 1<<32-1, &m.code) },
			func() (err error) { m.reason, err = r.String(MaxReasonLen); return err })
	}
	return r.Skip()
}

func (m *message) readGrants(r *packed.Reader) error {
	n, err := r.Array(2 * maxGrants)
	if err == nil && n%2 != 0 {
		err = fmt.Errorf("%w: %d elements, want pairs", packed.ErrMalformed, n)
	}
	for ; err == nil && n > 0; n -= 2 {
		var g grant
		if err = number(r, 0xffff, &g.id); err == nil {
			err = number(r, maxWindow, &g.n)
		}
		m.grants = append(m.grants, g)
	}
	return err
}
