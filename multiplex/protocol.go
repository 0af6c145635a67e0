package multiplex

import (
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

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

func encodeMap(first string, value func(*msgpack.Encoder) error) []byte {
	return encode(func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeMapLen(1), e.EncodeString(first), value(e))
	})
}

func encodePair(first string, v1 func(*msgpack.Encoder) error, second string, v2 func(*msgpack.Encoder) error) []byte {
	return encode(func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeMapLen(2), e.EncodeString(first), v1(e), e.EncodeString(second), v2(e))
	})
}

func number(v uint64) func(*msgpack.Encoder) error {
	return func(e *msgpack.Encoder) error { return e.EncodeUint(v) }
}

func encodeHello(version int, features uint64) []byte {
	return encodePair("v", number(uint64(version)), "f", number(features))
}

func encodeBeacon(nonce uint64, answer bool) []byte {
	return encodePair("p", number(nonce), "r", func(e *msgpack.Encoder) error { return e.EncodeBool(answer) })
}

func encodeNumbers(key string, vs ...uint64) []byte {
	return encodeMap(key, func(e *msgpack.Encoder) error {
		err := e.EncodeArrayLen(len(vs))
		for _, v := range vs {
			err = errors.Join(err, e.EncodeUint(v))
		}
		return err
	})
}

func encodeGrant(id channel.ID, n int) []byte { return encodeNumbers("w", uint64(id), uint64(n)) }

func encodeAsk(above int) []byte { return encodeMap("b", number(uint64(above))) }

func encodeReset(id channel.ID, code channel.Code) []byte {
	return encodeNumbers("x", uint64(id), uint64(code))
}

func encodeGoingAway(code channel.Code, reason string) []byte {
	return encodeMap("g", goingAway(code, reason))
}

func encodeDraining(code channel.Code, reason string) []byte {
	return encodePair("g", goingAway(code, reason), "d", func(e *msgpack.Encoder) error { return e.EncodeBool(true) })
}

func goingAway(code channel.Code, reason string) func(*msgpack.Encoder) error {
	return func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeArrayLen(2), e.EncodeUint(uint64(code)), e.EncodeString(escape.Cap(reason, MaxReasonLen)))
	}
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
	if first && len(key) == 1 {
		switch key[0] {
		case 'v', 'p', 'w', 'b', 'u', 'n', 'x', 'g':
			m.kind = key[0]
		}
	}
	switch {
	case first && m.kind == 'v':
		var v uint64
		v, err = r.Uint(1 << 16)
		m.version = int(v)
	case m.kind == 'v' && key == "f":
		m.features, err = r.Uint(1<<64 - 1)
	case first && m.kind == 'p':
		m.nonce, err = r.Uint(1<<64 - 1)
	case m.kind == 'p' && key == "r":
		m.answer, err = r.Bool()
	case first && (m.kind == 'w' || m.kind == 'u' || m.kind == 'n'):
		err = m.readGrants(r)
	case first && m.kind == 'b':
		var n uint64
		n, err = r.Uint(maxWindow)
		m.above = int(n)
	case first && m.kind == 'x':
		err = m.readReset(r)
	case first && m.kind == 'g':
		err = m.readGoingAway(r)
	case m.kind == 'g' && key == "d":
		m.draining, err = r.Bool()
	default:
		err = r.Skip()
	}
	return err
}

func (m *message) readGrants(r *packed.Reader) error {
	n, err := r.Array(2 * maxGrants)
	if err != nil {
		return err
	}
	if n%2 != 0 {
		return fmt.Errorf("%w: %d elements, want pairs", packed.ErrMalformed, n)
	}
	for range n / 2 {
		id, err := r.Uint(0xffff)
		if err != nil {
			return err
		}
		k, err := r.Uint(maxWindow)
		if err != nil {
			return err
		}
		m.grants = append(m.grants, grant{channel.ID(id), int(k)})
	}
	return nil
}

// pair reads an array's header and its first element; more elements follow.
func pair(r *packed.Reader, most uint64) (uint64, int, error) {
	n, err := r.Array(packed.MaxCount)
	if err != nil {
		return 0, 0, err
	}
	if n < 2 {
		return 0, 0, fmt.Errorf("%w: %d elements, want 2", packed.ErrMalformed, n)
	}
	v, err := r.Uint(most)
	return v, n - 2, err
}

func skip(r *packed.Reader, n int, err error) error {
	for ; err == nil && n > 0; n-- {
		err = r.Skip()
	}
	return err
}

func (m *message) readReset(r *packed.Reader) error {
	id, more, err := pair(r, 0xffff)
	if err != nil {
		return err
	}
	code, err := r.Uint(1<<32 - 1)
	m.id, m.code = channel.ID(id), channel.Code(code)
	return skip(r, more, err)
}

func (m *message) readGoingAway(r *packed.Reader) error {
	code, more, err := pair(r, 1<<32-1)
	if err != nil {
		return err
	}
	m.code = channel.Code(code)
	m.reason, err = r.String(MaxReasonLen)
	return skip(r, more, err)
}
