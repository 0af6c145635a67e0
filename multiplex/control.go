package multiplex

import (
	"bytes"
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
// A decoder takes three or more elements and ignores what it does not know.
// Only declines have a code. Several may stand in one frame, none crosses frames.
type request struct {
	name     string
	id       channel.ID
	answer   bool
	accepted bool
	window   int // what the sender is ready to receive; 0: knows no credit
	reason   string
	code     channel.Code // of a decline; 0: the reason is all there is
}

// encodeMap returns a map; a value follows each key.
func encodeMap(pairs ...any) []byte {
	return encode((*msgpack.Encoder).EncodeMapLen, len(pairs)/2, pairs)
}

func encode(head func(*msgpack.Encoder, int) error, n int, values []any) []byte {
	b := bytes.NewBuffer(make([]byte, 0, 32))
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(b)
	enc.UseCompactInts(true)
	err := head(enc, n)
	for _, v := range values {
		err = errors.Join(err, enc.Encode(v))
	}
	if err != nil {
		panic("multiplex: encode to memory: " + err.Error()) // which cannot fail
	}
	return b.Bytes()
}

func (r request) encode() []byte {
	values := []any{r.name, uint64(r.id), r.answer, r.accepted, uint64(r.window), r.reason}
	if r.code != 0 {
		values = append(values, uint64(r.code))
	}
	return encode((*msgpack.Encoder).EncodeArrayLen, len(values), values)
}

// decodeRequest reads one request. A bad name is not an error of decoding: the
// request is declined, the link lives.
func decodeRequest(r *packed.Reader) (q request, err error) {
	err = elements(r, 3, maxRequestElems,
		func() error { q.name, err = r.String(maxBody); return err },
		func() error { return number(r, 0xffff, &q.id) },
		func() error { q.answer, err = r.Bool(); return err },
		func() error { q.accepted, err = r.Bool(); return err },
		func() error { return number(r, maxWindow, &q.window) },
		func() error { q.reason, err = r.String(MaxReasonLen); return err },
		func() error {
			if !q.answer || q.accepted { // only a decline has a code
				return r.Skip()
			}
			return number(r, 1<<32-1, &q.code)
		},
	)
	if err != nil {
		return request{}, err
	}
	return q, nil
}

// elements reads an array of least to most elements, the first ones with the
// functions of reads. The others are skipped.
func elements(r *packed.Reader, least, most int, reads ...func() error) error {
	n, err := r.Array(most)
	if err == nil && n < least {
		err = fmt.Errorf("%w: array of %d elements, want %d or more", packed.ErrMalformed, n, least)
	}
	for i := 0; err == nil && i < n; i++ {
		read := r.Skip
		if i < len(reads) {
			read = reads[i]
		}
		err = read()
	}
	return err
}

// number reads a number of at most so much into v.
func number[T ~int | ~uint16 | ~uint32 | ~uint64](r *packed.Reader, most uint64, v *T) error {
	n, err := r.Uint(most)
	*v = T(n)
	return err
}

// CheckName returns an error that matches ErrBadName unless s may name a channel: 1
// to 255 bytes of UTF-8 without control and bidirectional formatting characters.
func CheckName(s string) error {
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
