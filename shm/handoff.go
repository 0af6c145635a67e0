package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"peerlink/internal/escape"
	"peerlink/internal/ring"
)

// Over the proven socket goes, integers big-endian:
//
//	caller  magic "PLSM" | version:uint16 | 0:uint16 | size:uint64   the size that it wants
//	callee  the same, with the size that it has made; with it, by SCM_RIGHTS, the
//	        region and one end of a socket. Or, instead: magic | version |
//	        length:uint16 | 0:uint64 | reason[length]
//	caller  0:uint8, or length:uint8 | reason[length]
//
// then both may use the region. The socket and the one that was sent carry
// single bytes from here on, whose value means nothing: the first wakes for the
// ring to the callee, the second for the ring to the caller.
const (
	wireMagic   = 0x504c534d
	wireVersion = 1
	headLen     = 16
	maxReason   = 200
)

// errRefused is what the far end said, bounded.
type errRefused string

func (e errRefused) Error() string { return fmt.Sprintf("the far end refused: %q", string(e)) }

// head is the fixed part of a message.
type head struct {
	reason int // its length
	size   int
}

func (h head) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, wireMagic)
	b = binary.BigEndian.AppendUint16(b, wireVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(h.reason))
	return binary.BigEndian.AppendUint64(b, uint64(h.size))
}

// decodeHead checks everything that is said before memory.
func decodeHead(b []byte) (head, error) {
	if len(b) != headLen || binary.BigEndian.Uint32(b) != wireMagic {
		return head{}, errors.New("the far end does not speak peerlink's shared memory protocol")
	}
	if v := binary.BigEndian.Uint16(b[4:]); v != wireVersion {
		return head{}, fmt.Errorf("the other process speaks version %d of the shared memory protocol, this one speaks %d: update the older program and restart it", v, wireVersion)
	}
	reason, size := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint64(b[8:])
	switch {
	case reason > maxReason:
		return head{}, fmt.Errorf("a reason of %d bytes announced, at most %d are taken", reason, maxReason)
	case reason == 0 && (size < ring.MinSize || size > ring.MaxSize):
		return head{}, fmt.Errorf("a region of %d bytes announced, %d to %d are taken", size, ring.MinSize, ring.MaxSize)
	}
	return head{reason: int(reason), size: int(size)}, nil
}

func reasonOf(err error) string { return escape.Cap(err.Error(), maxReason) }

// readReason reads why the far end does not go on.
func readReason(r io.Reader, n int) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return errRefused(escape.Cap(string(b), maxReason))
}
