package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// Bulk is a stream of blocks: a number of 8 bytes, big-endian and counted from
// 0, then random bytes, the same in each block. The highest bit of the number
// marks the last block of a phase. After it the receiver reports, in 16 bytes:
// how many bytes came and were right since the stream began, and 0, or 1 if the
// next one was wrong.
const (
	blockLen  = 64 << 10
	lastBlock = 1 << 63
	reportLen = 16
)

// newBlock returns a block; whoever sends or awaits it writes the number.
func newBlock() []byte {
	b := make([]byte, blockLen)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// checker compares a stream of blocks, in pieces of any size. It starts with
// want from newBlock.
type checker struct {
	want    []byte
	samples bool // compare all of the first phase, but of later ones only samples
	number  uint64
	last    bool  // the block under way is the last of a phase
	later   bool  // the first phase is over
	pos     int64 // bytes that were right
}

// sampleLen is how much of a block is compared where samples are, beside its
// number: a piece that begins elsewhere in each block. To compare everything
// would cost more than shared memory does.
const sampleLen = 128

// right returns how many of the bytes p, which stand at off of a block, are
// seen to be right before the first wrong one.
func (c *checker) right(p []byte, off int) int {
	n := len(p)
	if !c.samples || !c.later {
		return equal(p, c.want[off:])
	}
	at := int(c.number*sampleLen) % blockLen
	for _, piece := range [2][2]int{{0, 8}, {at, at + sampleLen}} {
		from, to := max(piece[0]-off, 0), min(piece[1]-off, n)
		if from >= to {
			continue
		}
		if k := equal(p[from:to], c.want[off+from:]); k < to-from {
			return from + k
		}
	}
	return n
}

// equal returns how many bytes of p are as those of want, from the beginning.
func equal(p, want []byte) (n int) {
	if bytes.Equal(p, want[:len(p)]) {
		return len(p)
	}
	for p[n] == want[n] {
		n++
	}
	return n
}

// errWrong is a byte that was not sent so.
var errWrong = errors.New("the stream is damaged")

// take checks what comes next and tells whether a phase ends with it. After an
// error pos is where the first wrong byte is.
func (c *checker) take(p []byte) (ended bool, err error) {
	for len(p) > 0 {
		if ended {
			return false, errWrong // nothing is sent before the report
		}
		off := int(c.pos % blockLen)
		if off == 0 {
			number := c.number
			if c.last = p[0]&0x80 != 0; c.last {
				number |= lastBlock
			}
			binary.BigEndian.PutUint64(c.want, number)
			c.number++
		}
		n := min(len(p), blockLen-off)
		right := c.right(p[:n], off)
		if c.pos += int64(right); right < n {
			return false, errWrong
		}
		p = p[n:]
		ended = c.last && off+n == blockLen
		c.later = c.later || ended
	}
	return ended, nil
}

// sink receives bulk until the sender ends, and reports after each phase. From
// the first wrong byte on it only reads, so that the report gets through.
func sink(conn net.Conn, c *checker) {
	buf := make([]byte, blockLen)
	for {
		n, err := conn.Read(buf)
		ended, wrong := c.take(buf[:n])
		if wrong != nil {
			reportWrong(conn, c.pos)
			return
		}
		if err != nil && c.pos%blockLen != 0 {
			_ = report(conn, c.pos, 1)
			return
		}
		if ended && report(conn, c.pos, 0) != nil || err != nil {
			return
		}
	}
}

// reportWrong reports and reads on at once: the sender looks only when it has
// sent all, and the conn may buffer nothing.
func reportWrong(conn net.Conn, right int64) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = report(conn, right, 1) })
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
	wg.Wait()
}

func report(conn net.Conn, right int64, wrong uint64) error {
	var r [reportLen]byte
	binary.BigEndian.PutUint64(r[:], uint64(right))
	binary.BigEndian.PutUint64(r[8:], wrong)
	_, err := conn.Write(r[:])
	return err
}

// source sends bulk to a sink. It starts with block from newBlock.
type source struct {
	conn   net.Conn
	block  []byte
	number uint64
	sent   int64
}

// phase sends blocks, each by writes of size bytes, until it sees stop, and
// waits for the report. It returns how many bytes were sent and verified; the
// least is one block.
func (s *source) phase(size int, stop *atomic.Bool) (int64, error) {
	began := s.sent
	for last := false; !last; s.number++ {
		last = stop.Load()
		number := s.number
		if last {
			number |= lastBlock
		}
		binary.BigEndian.PutUint64(s.block, number)
		for p := s.block; len(p) > 0; {
			n, err := s.conn.Write(p[:min(size, len(p))])
			s.sent += int64(n)
			if err != nil {
				return 0, fmt.Errorf("write after %d bytes: %w", s.sent, err)
			}
			p = p[n:]
		}
	}
	var r [reportLen]byte
	if _, err := io.ReadFull(s.conn, r[:]); err != nil {
		return 0, fmt.Errorf("no report on %d bytes: %w", s.sent, err)
	}
	right := int64(binary.BigEndian.Uint64(r[:]))
	if binary.BigEndian.Uint64(r[8:]) != 0 {
		return 0, fmt.Errorf("byte %d of %d: %w", right, s.sent, errWrong)
	}
	if right != s.sent {
		return 0, fmt.Errorf("%d bytes came of %d: %w", right, s.sent, errWrong)
	}
	return s.sent - began, nil
}

// tripLen is the size of a round trip's message.
const tripLen = 64

// trips are round trips on one stream: numbered messages that must come back
// as they went.
type trips struct {
	conn     net.Conn
	number   uint64
	out, in  [tripLen]byte
	prepared bool
}

// once makes one round trip.
func (t *trips) once() error {
	if !t.prepared {
		copy(t.out[:], newBlock())
		t.prepared = true
	}
	t.number++
	binary.BigEndian.PutUint64(t.out[:], t.number)
	if _, err := t.conn.Write(t.out[:]); err != nil {
		return fmt.Errorf("round trip %d: %w", t.number, err)
	}
	if _, err := io.ReadFull(t.conn, t.in[:]); err != nil {
		return fmt.Errorf("round trip %d: %w", t.number, err)
	}
	if t.in != t.out {
		return fmt.Errorf("round trip %d: %w", t.number, errWrong)
	}
	return nil
}
