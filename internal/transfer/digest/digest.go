// Package digest is the BLAKE3 of a file that grows: after each piece the sum
// of all that came so far is there, for a few microseconds.
//
//	var d digest.Digest
//	d.Write(piece)
//	sum := d.Sum() // BLAKE3-256 of everything written, at d.Len() bytes
//	copied := d    // goes its own way from here
package digest

import (
	"context"
	"io"

	"lukechampine.com/blake3"
)

// Size is the length of a Sum in bytes.
const Size = 32

// pieceLen is how much ReadFrom reads at a time, in bytes: large enough that the
// library hashes on several cores, small enough for the processor's cache.
const pieceLen = 1 << 20

// Sum is a BLAKE3-256.
type Sum [Size]byte

// Digest is a running BLAKE3. The zero value has had no bytes. A copy is
// independent. Its methods must not run concurrently.
type Digest struct {
	h    blake3.Hasher
	n    int64
	init bool
}

func (d *Digest) start() {
	if !d.init {
		d.h, d.init = *blake3.New(Size, nil), true
	}
}

// Write adds p. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	d.start()
	d.n += int64(len(p))
	return d.h.Write(p)
}

// Len returns how many bytes were written.
func (d *Digest) Len() int64 { return d.n }

// Sum returns the sum of what was written so far.
func (d *Digest) Sum() (s Sum) {
	d.start()
	d.h.Sum(s[:0])
	return s
}

// Advance adds n bytes of r, reading ahead while it hashes. It returns
// io.ErrUnexpectedEOF if r has fewer, and ctx's cause when ctx ends.
func (d *Digest) Advance(ctx context.Context, r io.Reader, n int64) error {
	type part struct {
		b   []byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	freec, fullc, donec := make(chan []byte, 2), make(chan part), make(chan struct{})
	freec <- make([]byte, min(n, pieceLen))
	if n > pieceLen {
		freec <- make([]byte, pieceLen)
	}
	go func() {
		defer close(donec)
		defer close(fullc)
		for left := n; left > 0; {
			var b []byte
			select {
			case b = <-freec:
			case <-ctx.Done():
				return
			}
			k, err := io.ReadFull(r, b[:min(left, int64(len(b)))])
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			left -= int64(k)
			select {
			case fullc <- part{b[:k], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-donec
	}()
	for p := range fullc {
		if p.err != nil {
			return p.err
		}
		_, _ = d.Write(p.b)
		freec <- p.b[:cap(p.b)]
	}
	return context.Cause(ctx)
}
