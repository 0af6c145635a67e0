package multiplex

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/channel"
	"peerlink/internal/packed"
)

// Bounds of a channel request.
const (
	// MaxNameLen is the length of a channel's name in bytes.
	MaxNameLen = 255
	// MaxReasonLen is the length of a decline's reason in bytes; longer ones
	// are cut when sent and refused when received.
	MaxReasonLen = 255

	maxWindow       = 1<<31 - 1
	maxRequestElems = 16
)

// ErrBadName is matched when a channel's name is empty, longer than 255 bytes,
// not UTF-8, or has control or bidirectional formatting characters.
var ErrBadName = errors.New("multiplex: bad channel name")

// request is a ChannelRequest of the control channel, or the answer to one: a
// msgpack array
//
//	[name str, channel uint16, isAnswer bool, accepted bool, window uint32, reason str, code uint32]
//
// of which a decoder takes three or more elements and ignores what it does not
// know. Only declines have a code. Several may stand in one frame, none crosses
// frames.
type request struct {
	name     string
	id       channel.ID
	answer   bool
	accepted bool
	window   int // what the sender is ready to receive; 0: knows no credit
	reason   string
	code     channel.Code // of a decline; 0: the reason is all there is
}

// packer encodes into a slice.
type packer struct{ b []byte }

// Write implements io.Writer.
func (p *packer) Write(b []byte) (int, error) {
	p.b = append(p.b, b...)
	return len(b), nil
}

// encode returns what f encodes. Encoding to memory cannot fail.
func encode(f func(*msgpack.Encoder) error) []byte {
	p := packer{make([]byte, 0, 32)}
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&p)
	enc.UseCompactInts(true)
	if err := f(enc); err != nil {
		panic("multiplex: encode to memory: " + err.Error())
	}
	return p.b
}

func (r request) encode() []byte {
	return encode(func(e *msgpack.Encoder) error {
		elems := 6
		if r.code != 0 {
			elems = 7
		}
		err := errors.Join(
			e.EncodeArrayLen(elems),
			e.EncodeString(r.name),
			e.EncodeUint(uint64(r.id)),
			e.EncodeBool(r.answer),
			e.EncodeBool(r.accepted),
			e.EncodeUint(uint64(r.window)),
			e.EncodeString(r.reason),
		)
		if r.code != 0 {
			err = errors.Join(err, e.EncodeUint(uint64(r.code)))
		}
		return err
	})
}

// decodeRequest reads one request. A bad name is not an error of decoding: the
// request is declined, the link lives.
func decodeRequest(r *packed.Reader) (q request, err error) {
	n, err := r.Array(maxRequestElems)
	if err != nil {
		return q, err
	}
	if n < 3 {
		return q, fmt.Errorf("%w: channel request of %d elements, want 3 or more", packed.ErrMalformed, n)
	}
	var id, window, code uint64
	fields := []func() error{
		func() error { q.name, err = r.String(maxBody); return err },
		func() error { id, err = r.Uint(0xffff); return err },
		func() error { q.answer, err = r.Bool(); return err },
		func() error { q.accepted, err = r.Bool(); return err },
		func() error { window, err = r.Uint(maxWindow); return err },
		func() error { q.reason, err = r.String(MaxReasonLen); return err },
		func() error {
			if !q.answer || q.accepted { // only a decline has a code
				return r.Skip()
			}
			code, err = r.Uint(1<<32 - 1)
			return err
		},
	}
	for i := range n {
		read := r.Skip
		if i < len(fields) {
			read = fields[i]
		}
		if err := read(); err != nil {
			return request{}, err
		}
	}
	q.id, q.window, q.code = channel.ID(id), int(window), channel.Code(code)
	return q, nil
}

// CheckName returns an error that matches ErrBadName unless s may name a channel: 1
// to 255 bytes of UTF-8 without control characters.
func CheckName(s string) error { return checkName(s) }

// checkName reports whether s may name a channel.
func checkName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrBadName)
	case len(s) > MaxNameLen:
		return fmt.Errorf("%w: %.40q… has %d bytes, at most %d are allowed", ErrBadName, s, len(s), MaxNameLen)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %q is not UTF-8", ErrBadName, s)
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return fmt.Errorf("%w: %q has the character %U", ErrBadName, s, r)
		}
	}
	return nil
}
