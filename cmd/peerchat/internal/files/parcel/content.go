package parcel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// ahead is how many pieces of a file are read and hashed before they are sent.
const ahead = 4

// bestPiece is the largest piece that is sent, in bytes. A piece is read, hashed,
// copied and written by several: it stays in the processor's cache.
const bestPiece = 128 << 10

// pieceSize is how large pieces are made: from minPiece up to bestPiece while one
// takes less than a moment to send, so that a cut on a slow link costs little.
type pieceSize struct{ n atomic.Int64 }

func (p *pieceSize) get() int64 { return max(minPiece, p.n.Load()) }

func (p *pieceSize) took(d time.Duration) {
	switch n := p.get(); {
	case d < 50*time.Millisecond:
		p.n.Store(min(bestPiece, 2*n))
	case d > 500*time.Millisecond:
		p.n.Store(max(minPiece, n/2))
	}
}

func (o *sending) do(j job) error {
	switch {
	case j.ended.Load():
		return nil
	case j.compare:
		return o.compare(j.outgoing)
	}
	return o.content(j.outgoing, j.want)
}

// compare tells the sum of the whole content.
func (o *sending) compare(e *outgoing) error {
	f, err := e.open()
	if err != nil {
		return o.fail(e, err)
	}
	defer f.Close()
	var d digest.Digest
	if err := d.Advance(o.ctx, f, e.size); err != nil {
		return o.failed(e, err)
	}
	sum := d.Sum()
	o.complete(e, sum)
	return o.w.send(kindDigest, e.index, sum[:])
}

// failed is fail, unless it was the transfer's end.
func (o *sending) failed(e *outgoing, err error) error {
	if o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errChanged
	}
	return o.fail(e, err)
}

// complete notes the whole content's sum: from now on it may be kept.
func (o *sending) complete(e *outgoing, sum digest.Sum) {
	o.mu.Lock()
	e.sum, e.sent = sum, true
	o.mu.Unlock()
}

// content sends a file from where the receiver has it, if that fits.
func (o *sending) content(e *outgoing, m want) error {
	f, err := e.open()
	if err != nil {
		return o.fail(e, err)
	}
	defer f.Close()
	var d digest.Digest
	if m.offset > 0 {
		if err := d.Advance(o.ctx, f, int64(m.offset)); err != nil {
			return o.failed(e, err)
		}
		if d.Sum() != m.sum {
			d = digest.Digest{}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return o.fail(e, err)
			}
		}
	}
	e.at = d.Len()
	if err := o.w.queue(kindStart, e.index, uint64(e.at)); err != nil {
		return err
	}
	o.tally.event(Event{Kind: Moved, Path: e.name(), Size: e.size, At: e.at})
	c := &pump{e: e, f: f, d: d, size: &o.pieces}
	if e.size-e.at <= minPiece {
		return o.small(c)
	}
	return o.stream(c)
}

// pump reads and hashes a file's pieces.
type pump struct {
	e    *outgoing
	f    *os.File
	d    digest.Digest
	read int64 // up to where
	size *pieceSize
}

// fill reads the next piece into a frame. The last piece is not given out unless
// the file is still what it was when it was announced.
func (c *pump) fill(frame []byte) ([]byte, error) {
	n := min(c.size.get(), c.e.size-c.read)
	frame = frame[:headLen+n]
	if _, err := io.ReadFull(c.f, frame[headLen:]); err != nil {
		return nil, unexpected(err)
	}
	c.read += n
	if c.read == c.e.size {
		if err := c.e.unchanged(c.f); err != nil {
			return nil, err
		}
	}
	return frame, nil
}

// seal hashes the piece and completes its frame.
func (c *pump) seal(frame []byte) []byte {
	_, _ = c.d.Write(frame[headLen:])
	sum := c.d.Sum()
	frame = append(frame, sum[:]...)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-headLen))
	frame[headLen-1] = byte(kindPiece)
	return frame
}

// small sends a file of one piece.
func (o *sending) small(c *pump) error {
	c.read = c.e.at
	if o.frame == nil {
		o.frame = make([]byte, 0, headLen+minPiece+digest.Size)
	}
	frame, err := c.fill(o.frame)
	if err != nil {
		return o.failed(c.e, err)
	}
	return o.sendPiece(c.e, c.seal(frame))
}

// filled is a piece in a frame, or why there is none.
type filled struct {
	frame []byte
	err   error
}

// stream sends a file of many: the next are read and hashed while one is sent. Both
// in one place, because what was just read is in that core's cache.
func (o *sending) stream(c *pump) error {
	ctx, cancel := context.WithCancel(o.ctx)
	freec, sealedc := make(chan []byte, ahead), make(chan filled, ahead)
	for i := range o.frames { // all are free: nothing of an earlier file goes on
		if o.frames[i] == nil {
			o.frames[i] = make([]byte, 0, headLen+bestPiece+digest.Size)
		}
		freec <- o.frames[i]
	}
	c.read = c.e.at
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.fillAll(ctx, freec, sealedc) })
	for p := range sealedc {
		switch {
		case p.err != nil:
			return o.failed(c.e, p.err)
		case c.e.ended.Load():
			return o.w.send(kindBroken, c.e.index, "")
		}
		if err := o.sendPiece(c.e, p.frame); err != nil {
			return err
		}
		freec <- p.frame[:0]
	}
	if o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	return nil
}

// fillAll reads and hashes pieces until the file or ctx ends, or there is an error.
func (c *pump) fillAll(ctx context.Context, freec <-chan []byte, to chan<- filled) {
	defer close(to)
	for c.read < c.e.size {
		var frame []byte
		select {
		case frame = <-freec:
		case <-ctx.Done():
			return
		}
		frame, err := c.fill(frame)
		if err == nil {
			frame = c.seal(frame)
		}
		if !pass(ctx, to, filled{frame, err}) {
			return
		}
	}
}

// pass hands a piece on; false if that was the last.
func pass(ctx context.Context, to chan<- filled, p filled) bool {
	select {
	case to <- p:
		return p.err == nil
	case <-ctx.Done():
		return false
	}
}

// sendPiece sends a piece and tells of it.
func (o *sending) sendPiece(e *outgoing, frame []byte) error {
	n := int64(len(frame) - headLen - digest.Size)
	if e.at+n == e.size {
		o.complete(e, digest.Sum(frame[len(frame)-digest.Size:]))
	}
	began := time.Now()
	if err := o.w.sendFrame(frame); err != nil {
		return err
	}
	o.pieces.took(time.Since(began))
	o.progress.Add(1)
	e.at += n
	o.tally.event(Event{Kind: Moved, Path: e.name(), Size: e.size, At: e.at})
	return nil
}
