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
	"math/bits"
	"runtime"

	"lukechampine.com/blake3/guts"
)

// Size is the length of a Sum in bytes.
const Size = 32

// pieceLen is how much Advance reads at a time, in bytes: it fits the processor's
// cache.
const pieceLen = 256 << 10

// Sum is a BLAKE3-256.
type Sum [Size]byte

// groupLen is how much is hashed at once, in bytes: the 16 chunks that the widest
// registers take side by side. Pieces that are a multiple of it are hashed where
// they are.
const groupLen = guts.MaxSIMD * guts.ChunkSize

// onOneCore is the height of a tree that is hashed on one core; the library hashes
// higher ones on all.
const onOneCore = 0

// highest returns how high full may make trees. The library has vector code for
// amd64, where one core is faster than most links; elsewhere one would hold them up.
func highest() int {
	if runtime.GOARCH == "amd64" {
		return onOneCore
	}
	return 63
}

// Digest is a running BLAKE3. The zero value has had no bytes. A copy is
// independent. Its methods must not run concurrently.
//
// It is the library's tree with a wider foot: the library's own Hasher keeps back
// the last chunk of each piece, and so cuts the next into a dozen trees of all sizes.
type Digest struct {
	stack  [50][8]uint32 // roots of full trees of 1<<i groups, where bit i of groups is set
	groups uint64        // in stack
	last   guts.Node     // of the last full tree, not in stack: it may be the root
	height int           // last has 1<<height groups
	held   bool          // there is a last
	rest   []byte        // less than a group; never written to
	n      int64
}

// Write adds p. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	total := len(p)
	if len(d.rest) > 0 {
		k := min(groupLen-len(d.rest), len(p))
		d.rest = append(d.rest[:len(d.rest):len(d.rest)], p[:k]...)
		if p = p[k:]; len(d.rest) < groupLen {
			return total, nil
		}
		d.tree(d.rest, 0)
		d.rest = nil
	}
	d.rest = append(d.rest, d.full(p, highest())...)
	return total, nil
}

// full adds all full groups of p, in trees up to a height, and returns the rest.
func (d *Digest) full(p []byte, most int) []byte {
	for len(p) >= groupLen {
		d.settle()
		height := min(most, bits.TrailingZeros64(d.groups), bits.Len(uint(len(p)/groupLen))-1)
		d.tree(p[:groupLen<<height], height)
		p = p[groupLen<<height:]
	}
	return p
}

// tree adds a full tree of 1<<height groups.
func (d *Digest) tree(p []byte, height int) {
	d.settle()
	counter := d.groups * guts.MaxSIMD
	if height == onOneCore {
		d.last = guts.CompressBuffer((*[groupLen]byte)(p), groupLen, &guts.IV, counter, 0)
	} else {
		d.last = guts.CompressEigentree(p, &guts.IV, counter, 0)
	}
	d.height, d.held = height, true
}

// settle puts last into stack: more follows it, so it is not the root.
func (d *Digest) settle() {
	if !d.held {
		return
	}
	cv, i := guts.ChainingValue(d.last), d.height
	for ; d.groups>>i&1 == 1; i++ {
		cv = guts.ChainingValue(guts.ParentNode(d.stack[i], cv, &guts.IV, 0))
	}
	d.stack[i] = cv
	d.groups += 1 << d.height
	d.held = false
}

// Len returns how many bytes were written.
func (d *Digest) Len() int64 { return d.n }

// Sum returns the sum of what was written so far.
func (d *Digest) Sum() Sum {
	s := *d
	node := s.last
	if len(s.rest) > 0 || !s.held {
		s.settle()
		var group [groupLen]byte
		node = guts.CompressBuffer(&group, copy(group[:], s.rest), &guts.IV, s.groups*guts.MaxSIMD, 0)
	}
	for i := range s.stack {
		if s.groups>>i&1 == 1 {
			node = guts.ParentNode(s.stack[i], guts.ChainingValue(node), &guts.IV, 0)
		}
	}
	node.Flags |= guts.FlagRoot
	out := guts.WordsToBytes(guts.CompressNode(node))
	return Sum(out[:Size])
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
