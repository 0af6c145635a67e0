package control

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Version is the protocol's. A change that an old command or daemon would not
// understand makes another one.
const Version = 4

// Bounds, in bytes.
const (
	maxRequest = 1 << 20
	maxAnswer  = 16<<20 - 1
	maxData    = 256 << 10 // of one frame; a sender cuts
	maxReset   = 1 << 10
)

// greetTimeout bounds the greeting and the first message: both sides are on one
// machine and have them ready.
const greetTimeout = 5 * time.Second

const magic = "PLCT"

// kind is what a frame is.
type kind byte

const (
	kindMessage kind = iota
	kindData
	kindEnd
	kindClose
	kindReset
	kindStop
)

// errMalformed is matched when the other side breaks the protocol.
var errMalformed = errors.New("malformed")

// VersionError tells that command and daemon are of different releases.
type VersionError struct {
	Theirs uint32
	PID    int // of the daemon, 0 if not known
}

// Error says what to do about it.
func (e *VersionError) Error() string {
	who := "the daemon"
	if e.PID > 0 {
		who = fmt.Sprintf("the daemon (process %d)", e.PID)
	}
	return fmt.Sprintf("%s speaks version %d of the control protocol, this command version %d: restart the daemon, with the same release of peerchat (peerchat stop; or: kill %d)", who, e.Theirs, Version, e.PID)
}

// greeting is what each side sends first.
func greeting() []byte {
	return binary.BigEndian.AppendUint32([]byte(magic), Version)
}

// readGreeting returns the other side's version.
func readGreeting(r io.Reader) (uint32, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, fmt.Errorf("no greeting: %w", err)
	}
	if string(b[:4]) != magic {
		return 0, fmt.Errorf("%w: it begins with %q", errMalformed, b[:])
	}
	return binary.BigEndian.Uint32(b[4:]), nil
}

// wire reads and writes frames. One goroutine at a time may read, one write.
type wire struct {
	conn net.Conn
	br   *bufio.Reader
}

func newWire(conn net.Conn) *wire { return &wire{conn, bufio.NewReaderSize(conn, 4<<10)} }

// header of a frame.
func header(k kind, n int) [4]byte {
	return [4]byte{byte(k), byte(n >> 16), byte(n >> 8), byte(n)}
}

// readHeader returns the next frame's kind and length, within the kind's bound.
func parseHeader(b [4]byte, maxMessage int) (kind, int, error) {
	k, n := kind(b[0]), int(b[1])<<16|int(b[2])<<8|int(b[3])
	most := 0
	switch k {
	case kindMessage:
		most = maxMessage
	case kindData:
		most = maxData
	case kindReset, kindStop:
		most = maxReset
	case kindEnd, kindClose:
	default:
		return 0, 0, fmt.Errorf("%w: a frame of kind %d", errMalformed, k)
	}
	if n > most {
		return 0, 0, fmt.Errorf("%w: a frame of kind %d with %d bytes, at most %d are taken", errMalformed, k, n, most)
	}
	return k, n, nil
}

// writeMessage sends v as a message.
func (w *wire) writeMessage(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("an answer of %d bytes, at most %d are sent", len(b), maxAnswer)
	}
	h := header(kindMessage, len(b))
	bufs := net.Buffers{h[:], b}
	_, err = bufs.WriteTo(w.conn)
	return err
}

// readMessage reads a message into v, which takes no unknown fields: both sides
// have the same version. io.EOF is an end before it began.
func (w *wire) readMessage(most int, v any) error {
	var h [4]byte
	if _, err := io.ReadFull(w.br, h[:]); err != nil {
		return err
	}
	k, n, err := parseHeader(h, most)
	if err != nil {
		return err
	}
	if k != kindMessage {
		return fmt.Errorf("%w: a frame of kind %d for a message", errMalformed, k)
	}
	b, err := readStepwise(w.br, n)
	if err != nil {
		return err
	}
	if err := strict(b, v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

// readStepwise reads n bytes; the memory for them grows as they arrive.
func readStepwise(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, int64(n))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}
