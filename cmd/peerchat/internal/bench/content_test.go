package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// blocks returns n blocks as a source sends them, the last one marked.
func blocks(n int) []byte {
	var out []byte
	for i := range n {
		b := newBlock()
		number := uint64(i)
		if i == n-1 {
			number |= lastBlock
		}
		binary.BigEndian.PutUint64(b, number)
		out = append(out, b...)
	}
	return out
}

// feed gives p to a checker in pieces of 1 to most bytes.
func feed(p []byte, most int) (c checker, ended bool, err error) {
	c.want = newBlock()
	r := rand.New(rand.NewPCG(1, 2))
	for len(p) > 0 && err == nil {
		n := min(len(p), 1+r.IntN(most))
		ended, err = c.take(p[:n])
		p = p[n:]
	}
	return c, ended, err
}

func TestCheckerTakesWhatWasSent(t *testing.T) {
	good := blocks(6)
	for _, most := range []int{1, 7, 1000, blockLen, 3 * blockLen} {
		if c, ended, err := feed(good, most); err != nil || !ended || c.pos != int64(len(good)) {
			t.Errorf("pieces up to %d: %d of %d bytes, ended %v: %v", most, c.pos, len(good), ended, err)
		}
	}
}

func TestCheckerNoticesEveryWrongByte(t *testing.T) {
	good := blocks(3)
	for at := 0; at < len(good); at += 997 {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if c, _, err := feed(bad, 5000); !errors.Is(err, errWrong) || c.pos != int64(at) {
			t.Fatalf("byte %d is wrong: %v, said to be at %d", at, err, c.pos)
		}
	}
}

func TestCheckerNoticesDamage(t *testing.T) {
	good := blocks(5)
	cut := func(from, to int) []byte { return append(bytes.Clone(good[:from]), good[to:]...) }
	for name, bad := range map[string][]byte{
		"lost block":     cut(2*blockLen, 3*blockLen),
		"lost byte":      cut(2*blockLen+9, 2*blockLen+10),
		"repeated block": append(bytes.Clone(good[:2*blockLen]), good[blockLen:]...),
		"swapped blocks": append(append(bytes.Clone(good[:blockLen]), good[2*blockLen:3*blockLen]...), good[blockLen:]...),
		"zeros":          append(bytes.Clone(good[:blockLen]), make([]byte, 4*blockLen)...),
		"after the end":  append(bytes.Clone(good), 0),
	} {
		for _, most := range []int{100, blockLen, len(bad)} {
			if _, _, err := feed(bad, most); !errors.Is(err, errWrong) {
				t.Errorf("%s, pieces up to %d: %v", name, most, err)
			}
		}
	}
	if _, ended, err := feed(good[:len(good)-1], 5000); ended || err != nil {
		t.Errorf("one byte missing: ended %v, %v", ended, err)
	}
}

// Where samples are compared, the first phase is compared whole, and of later
// blocks the number and the piece whose turn it is.
func TestSamplesAreCompared(t *testing.T) {
	const n = 4
	good := append(blocks(n), blocks(n)...)
	for i := range n { // the second phase goes on counting
		number := uint64(n + i)
		if i == n-1 {
			number |= lastBlock
		}
		binary.BigEndian.PutUint64(good[(n+i)*blockLen:], number)
	}
	run := func(b []byte) (int64, error) {
		c := checker{want: newBlock(), samples: true}
		for len(b) > 0 {
			k := min(len(b), 1<<10) // no piece holds parts of two phases
			if _, err := c.take(b[:k]); err != nil {
				return c.pos, err
			}
			b = b[k:]
		}
		return c.pos, nil
	}
	if pos, err := run(good); err != nil || pos != int64(len(good)) {
		t.Fatalf("%d of %d bytes: %v", pos, len(good), err)
	}
	second := n * blockLen
	seen := map[int]bool{}
	for _, at := range []int{3, 8, 77, blockLen + 12_345, second - 1} { // byte 0 of a block has its mark
		seen[at] = true
	}
	for i := range n {
		block := second + i*blockLen
		piece := block + (n+i+1)*sampleLen
		seen[block+3], seen[piece], seen[piece+sampleLen-1], seen[piece+sampleLen] = true, true, true, false
	}
	for at, want := range seen {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if pos, err := run(bad); errors.Is(err, errWrong) != want || want && pos != int64(at) {
			t.Errorf("byte %d is wrong: %v, said to be at %d", at, err, pos)
		}
	}
	if _, err := run(append(bytes.Clone(good[:second+blockLen]), good[second+2*blockLen:]...)); !errors.Is(err, errWrong) {
		t.Errorf("a lost block of the second phase: %v", err)
	}
}

// damaging flips a bit of the byte that goes or comes at an offset.
type damaging struct {
	net.Conn
	writeAt, readAt int64 // -1 for none
	wrote, read     int64
}

func (d *damaging) Write(p []byte) (int, error) {
	if at := d.writeAt - d.wrote; d.writeAt >= 0 && at >= 0 && at < int64(len(p)) {
		p = bytes.Clone(p)
		p[at] ^= 0x10
	}
	n, err := d.Conn.Write(p)
	d.wrote += int64(n)
	return n, err
}

func (d *damaging) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if at := d.readAt - d.read; d.readAt >= 0 && at >= 0 && at < int64(n) {
		p[at] ^= 0x10
	}
	d.read += int64(n)
	return n, err
}

// served returns the near end of a pipe whose far end has one task.
func served(t *testing.T, what task) net.Conn {
	near, there := net.Pipe()
	var f far
	f.serve(there)
	t.Cleanup(func() {
		_ = near.Close()
		f.close()
	})
	b := [1]byte{byte(what)}
	if _, err := near.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near, b[:]); err != nil || task(b[0]) != what {
		t.Fatalf("echo %q: %v", b, err)
	}
	return near
}

// stopping tells a source to stop after some bytes.
type stopping struct {
	net.Conn
	left int
	stop atomic.Bool
}

func (s *stopping) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left <= 0 {
		s.stop.Store(true)
	}
	return s.Conn.Write(p)
}

func TestPhasesAreVerifiedOneAfterTheOther(t *testing.T) {
	conn := served(t, taskSink)
	s := &source{conn: conn, block: newBlock()}
	for _, size := range []int{blockLen, 1000, 1 << 20} {
		st := &stopping{Conn: conn, left: 5 * blockLen / 2}
		s.conn = st
		// It looks before each block: two and a half make four with the last.
		if n, err := s.phase(size, &st.stop); n != 4*blockLen || err != nil {
			t.Errorf("writes of %d: %d bytes, %v", size, n, err)
		}
	}
}

func TestSourceLearnsOfDamage(t *testing.T) {
	// Byte 0 of a block holds the mark of the last one: a bit of the number there
	// is as good as any.
	for _, at := range []int64{0, 8, 77, blockLen - 1, blockLen + 12_345, 3*blockLen + 1} {
		st := &stopping{Conn: &damaging{Conn: served(t, taskSink), writeAt: at, readAt: -1}, left: 5 * blockLen / 2}
		s := &source{conn: st, block: newBlock()}
		if n, err := s.phase(1000, &st.stop); !errors.Is(err, errWrong) {
			t.Errorf("byte %d was damaged: %d, %v", at, n, err)
		}
	}
}

// A report that tells of fewer bytes is damage, too: of the report, or of the
// stream in a way that the marks hid.
func TestSourceComparesTheTotal(t *testing.T) {
	st := &stopping{Conn: &damaging{Conn: served(t, taskSink), writeAt: -1, readAt: 5}, left: 1}
	s := &source{conn: st, block: newBlock()}
	if n, err := s.phase(blockLen, &st.stop); !errors.Is(err, errWrong) {
		t.Errorf("the report was damaged: %d, %v", n, err)
	}
}

func TestSinkReportsABrokenOffBlock(t *testing.T) {
	near, there := net.Pipe()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		sink(halfClosed{there}, &checker{want: newBlock()})
	}()
	if _, err := near.Write(blocks(1)[:100]); err != nil {
		t.Fatal(err)
	}
	var r [reportLen]byte
	if _, err := io.ReadFull(near, r[:]); err != nil || binary.BigEndian.Uint64(r[:]) != 100 || r[reportLen-1] != 1 {
		t.Errorf("report %v, %v", r, err)
	}
	_ = near.Close()
	<-gone
}

// halfClosed ends the reading after the first bytes.
type halfClosed struct{ net.Conn }

func (h halfClosed) Read(p []byte) (int, error) {
	n, _ := h.Conn.Read(p)
	return n, io.EOF
}

func TestRoundTripsAreCompared(t *testing.T) {
	tr := &trips{conn: served(t, taskEcho)}
	for range 3 {
		if err := tr.once(); err != nil {
			t.Fatal(err)
		}
	}
	for at := range int64(tripLen) {
		for _, d := range []*damaging{{writeAt: at, readAt: -1}, {writeAt: -1, readAt: at}} {
			d.Conn = served(t, taskEcho)
			tr := &trips{conn: d}
			if err := tr.once(); !errors.Is(err, errWrong) {
				t.Errorf("byte %d was damaged: %v", at, err)
			}
		}
	}
}
