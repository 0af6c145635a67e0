// Package ring is a pair of lock-free byte rings, one in each direction, laid
// out in memory that two processes share. It makes no system call and never
// waits; package shm maps the memory and waits for the bells.
//
//	w, r, err := ring.New(region, ring.First) // the other process: ring.Second
//	n, wake, err := w.Write(p)                // wake: the peer sleeps, ring its bell
//	n, wake, err = r.Read(p)
//
// # The region
//
// 256 bytes of control, then the bytes of the first end's ring, then the bytes of
// the second's. Both rings have the same length, a multiple of 64. Control has a line of
// 64 bytes for each part that an end plays, so that no two processes write to
// one:
//
//	  0  the first end as writer
//	 64  the first end as reader
//	128  the second end as writer
//	192  the second end as reader
//
// and in each line, in the machine's byte order:
//
//	0 pos uint64       bytes written, or read, since the beginning
//	8 sleeping uint32  1: waits for its bell
//	12 closed uint32   1: writes, or reads, no more
//
// A ring carries a stream and no messages: what has no length needs none
// checked.
//
// # A hostile peer
//
// may change any byte of the region at any moment. So an end never reads back
// what it wrote there: its own position it keeps for itself. The peer's
// position is loaded once, must not go back and must be possible; otherwise the
// end reports ErrCorrupt from then on. The bytes themselves are copied out before
// they are looked at.
package ring

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"
)

// Sizes in bytes.
const (
	// ControlSize is what stands before the two rings.
	ControlSize = 256
	// MinSize and MaxSize bound a region.
	MinSize = 64 << 10
	MaxSize = 1 << 30

	lineSize = 64
)

// ErrCorrupt is the error of an end after the peer broke the rules of the region.
var ErrCorrupt = errors.New("the peer has corrupted the shared memory")

// ErrClosed is the error of a writer after the peer has stopped reading.
var ErrClosed = errors.New("the peer reads no more")

// Side says which end of the region this process is.
type Side int

// The sides.
const (
	First Side = iota
	Second
)

// line is one end's part of the control block.
type line struct {
	pos      atomic.Uint64
	sleeping atomic.Uint32
	closed   atomic.Uint32
	_        [lineSize - 16]byte
}

type control [4]line

// New returns the writer and the reader of one end. The region must begin at a
// multiple of 64, hold nothing but zeros when the first of the two ends is
// made, and stay mapped while either is used.
func New(region []byte, side Side) (*Writer, *Reader, error) {
	if len(region) < MinSize || len(region) > MaxSize {
		return nil, nil, fmt.Errorf("region of %d bytes, want %d to %d", len(region), MinSize, MaxSize)
	}
	base := unsafe.Pointer(unsafe.SliceData(region))
	if uintptr(base)%lineSize != 0 {
		return nil, nil, errors.New("region is not aligned to 64 bytes")
	}
	ctl := (*control)(base)
	size := (len(region) - ControlSize) / 2 / lineSize * lineSize
	rings := [2][]byte{
		region[ControlSize : ControlSize+size : ControlSize+size],
		region[ControlSize+size : ControlSize+2*size : ControlSize+2*size],
	}
	me, peer := int(side), 1-int(side)
	w := &Writer{half: half{data: rings[me], own: &ctl[2*me], peer: &ctl[2*peer+1]}}
	r := &Reader{half: half{data: rings[peer], own: &ctl[2*me+1], peer: &ctl[2*peer]}}
	return w, r, nil
}

// Writer is the writing end of one ring. One goroutine at a time may use it,
// but for Sleep, Awake and Close, which may run at any time.
type Writer struct {
	half       // pos counts the bytes written
	staged int // of pos, what is not published
}

// half is what both ends of a ring have.
type half struct {
	data      []byte
	own, peer *line
	pos       uint64 // bytes that this end has passed
	off       int    // pos within data
	seen      uint64 // of the peer's position, what was believed last
	err       error
}

func (h *half) advance(n int) {
	h.pos += uint64(n)
	if h.off += n; h.off >= len(h.data) {
		h.off -= len(h.data)
	}
}

// Awake undoes Sleep.
func (h *half) Awake() { h.own.sleeping.Store(0) }

// Close says that this end reads or writes no more; wake says that the peer sleeps:
// the caller must ring its bell, once.
func (h *half) Close() (wake bool) {
	h.own.closed.Store(1)
	return h.peer.wake()
}

// Cap returns how many bytes the ring holds.
func (w *Writer) Cap() int { return len(w.data) }

// room returns how many bytes fit; fewer than want only if there are no more.
func (w *Writer) room(want int) (int, error) {
	if free := len(w.data) - int(w.pos-w.seen); free >= want || w.err != nil {
		return free, w.err
	}
	pos, written := w.peer.pos.Load(), w.pos-uint64(w.staged)
	if pos < w.seen || pos > written {
		w.err = fmt.Errorf("%w: it says that it has read %d of %d bytes, before that it was %d", ErrCorrupt, pos, written, w.seen)
		return 0, w.err
	}
	w.seen = pos
	return len(w.data) - int(w.pos-pos), nil
}

// Write copies as much of p as fits and publishes it, behind what is staged.
// wake says that the reader sleeps: the caller must ring its bell, once.
func (w *Writer) Write(p []byte) (n int, wake bool, err error) {
	if w.err == nil && w.Closed() {
		w.err = ErrClosed
	}
	free, err := w.room(len(p))
	if err != nil {
		return 0, false, err
	}
	n = min(len(p), free)
	if n+w.staged == 0 {
		return 0, false, nil
	}
	w.fill(p[:n])
	w.staged = 0
	w.own.pos.Store(w.pos)
	return n, w.peer.wake(), nil
}

// Stage copies a and b, both of them, to where the next Write publishes them.
// False says that they do not fit, or that the Write would fail: then nothing
// was copied.
func (w *Writer) Stage(a, b []byte) bool {
	n := len(a) + len(b)
	free, err := w.room(n)
	if err != nil || free < n || w.Closed() {
		return false
	}
	w.fill(a)
	w.fill(b)
	w.staged += n
	return true
}

// fill copies p, for which there is room.
func (w *Writer) fill(p []byte) {
	if k := copy(w.data[w.off:], p); k < len(p) {
		copy(w.data, p[k:])
	}
	w.advance(len(p))
}

// Ready reports whether a writer that has n bytes to write should go on: they
// fit, or half the ring is free, or it would fail.
func (w *Writer) Ready(n int) bool {
	need := min(n, len(w.data)/2)
	free, err := w.room(need)
	return free >= need || err != nil || w.Closed()
}

// Closed reports whether the reader reads no more.
func (w *Writer) Closed() bool { return w.peer.closed.Load() != 0 }

// Sleep says that this end waits for its bell, and Awake that it does not. Look
// at Ready after Sleep, or a wake-up is lost.
func (w *Writer) Sleep() { w.own.sleeping.Store(1) }

// wake reports, once, that the line's owner sleeps.
func (l *line) wake() bool {
	return l.sleeping.Load() != 0 && l.sleeping.Swap(0) != 0
}

// Reader is the reading end of one ring. One goroutine at a time may use it, but
// for Awake and Close, which may run at any time.
type Reader struct {
	half        // pos counts the bytes read
	told uint64 // of pos, what the writer knows
}

// look loads the writer's position. Whether it has closed is loaded before:
// what it wrote last would be lost otherwise.
func (r *Reader) look() error {
	if r.err != nil {
		return r.err
	}
	closed := r.peer.closed.Load() != 0
	pos := r.peer.pos.Load()
	if pos < r.seen || pos-r.pos > uint64(len(r.data)) {
		r.err = fmt.Errorf("%w: it says that it has written %d bytes, before that it was %d, and %d are read", ErrCorrupt, pos, r.seen, r.pos)
		return r.err
	}
	r.seen = pos
	if closed && pos == r.pos {
		r.err = io.EOF
	}
	return r.err
}

// Read copies what there is, len(p) bytes at most. The error is io.EOF when the
// writer has closed and all is read. wake says that the writer sleeps and half
// the ring is free: the caller must ring its bell, once.
func (r *Reader) Read(p []byte) (n int, wake bool, err error) {
	if r.seen == r.pos {
		if err := r.look(); err != nil {
			return 0, false, err
		}
	}
	n = min(len(p), int(r.seen-r.pos))
	if n == 0 {
		return 0, false, nil
	}
	if k := copy(p[:n], r.data[r.off:]); k < n {
		copy(p[k:n], r.data)
	}
	r.advance(n)
	return n, r.tell(), nil
}

// tell publishes the position, but not for every few bytes, even if all is read:
// the line would go to and fro between the cores for each message. A writer
// sleeps only while more than half the ring is unread, so what is told late, by
// a sixteenth of it at most, leaves none asleep.
func (r *Reader) tell() (wake bool) {
	if r.pos-r.told < uint64(len(r.data)/16) {
		return false
	}
	r.publish()
	return int(r.seen-r.pos) <= len(r.data)/2 && r.peer.wake()
}

func (r *Reader) publish() {
	r.told = r.pos
	r.own.pos.Store(r.pos)
}

// Ready reports whether Read would return something: bytes, or an error.
func (r *Reader) Ready() bool {
	return r.seen != r.pos || r.look() != nil || r.seen != r.pos
}

// Sleep says that this end waits for its bell, and Awake that it does not. Look
// at Ready after Sleep, or a wake-up is lost. What has been read is told by then.
func (r *Reader) Sleep() {
	if r.told != r.pos {
		r.publish()
	}
	r.own.sleeping.Store(1)
}
