package codes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// kind says what a frame carries; package doc has the table.
type kind uint8

const (
	kindShare kind = iota + 1
	kindConfirm
	kindNo
	kindName
	kindKept
)

// refusal is why an end says no.
type refusal uint8

const (
	noWrong refusal = iota + 1 // the words do not fit
	noSpent                    // the code cannot be used any more
	noSense                    // what came was not understood
	noRoom                     // it could not be kept
)

const (
	version  = 1
	maxFrame = 128 // bytes of a frame behind its length: kind and body
)

var errMalformed = errors.New("malformed message")

// frame makes one frame. The body must fit one.
func frame(k kind, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(1+len(body)))
	b = append(b, byte(k))
	return append(b, body...)
}

// readFrame reads one frame. A longer one is refused from its header; a cut
// within a frame is io.ErrUnexpectedEOF.
func readFrame(r io.Reader) (kind, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n < 1 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: it announces %d bytes, 1 to %d are taken", errMalformed, n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind(b[0]), b[1:], nil
}

// expect reads a frame of one kind and length. A no is the error that it means.
func expect(r io.Reader, want kind, size int) ([]byte, error) {
	k, body, err := readFrame(r)
	switch {
	case err == io.EOF:
		return nil, io.ErrUnexpectedEOF // nobody ends a proof by going away
	case err != nil:
		return nil, err
	case k == kindNo && len(body) > 0:
		return nil, refused(refusal(body[0]))
	case k != want:
		return nil, fmt.Errorf("%w: one of kind %d where one of kind %d belongs", errMalformed, k, want)
	case len(body) != size:
		return nil, fmt.Errorf("%w: one of kind %d has %d bytes, want %d", errMalformed, k, len(body), size)
	}
	return body, nil
}

// refused is the error of the other device's no.
func refused(why refusal) error {
	switch why {
	case noWrong:
		return fmt.Errorf("%w, says the other device", ErrWrong)
	case noSpent:
		return fmt.Errorf("%w, says the other device", ErrSpent)
	case noRoom:
		return errors.New("the other device could not keep this one")
	}
	return errors.New("the other device did not understand this one: is one of the two programs older?")
}
