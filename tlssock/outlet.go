package tlssock

import (
	"net"
	"sync"
	"syscall"

	"peerlink/internal/rawsock"
)

// outCap is how many bytes of records wait for one system call: 16 records.
// More gain nothing (BenchmarkBulk).
const outCap = 256 << 10

// outPool keeps the buffers that no connection needs at the moment.
var outPool = sync.Pool{New: func() any { b := make([]byte, 0, outCap+32<<10); return &b }}

// gathering says what becomes of records.
type gathering int

const (
	never   gathering = iota // each is sent at once
	waiting                  // they wait for send; a full outlet is sent, and waits for the carrier
	eager                    // they wait for trySend
)

// outlet stands between TLS, which makes one call per record, and the carrier.
// Its lock serialises those who write to the carrier, as the lock of TLS does
// above it: a Write, and a Read when an alert or a key update has to be
// answered.
type outlet struct {
	conn net.Conn
	raw  *rawsock.Socket // nil where the carrier cannot be written to without waiting

	mu   sync.Mutex
	mode gathering
	buf  *[]byte // what waits; nil if nothing does
	sent int     // of it
	err  error   // writing is broken
}

// gather begins to collect records.
func (o *outlet) gather() {
	o.mu.Lock()
	o.mode = waiting
	o.mu.Unlock()
}

// gatherEager begins to collect records if they can go out at once: nothing
// waits, and no goroutine writes.
func (o *outlet) gatherEager() bool {
	if o.raw == nil || !o.mu.TryLock() {
		return false
	}
	defer o.mu.Unlock()
	if o.buf != nil || o.err != nil {
		return false
	}
	o.mode = eager
	return true
}

// idle reports whether no goroutine writes to the carrier.
func (o *outlet) idle() bool {
	if !o.mu.TryLock() {
		return false
	}
	o.mu.Unlock()
	return true
}

// Write takes a sealed record, or several.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	if o.buf == nil {
		o.buf = outPool.Get().(*[]byte)
	}
	*o.buf = append(*o.buf, p...)
	if o.mode == never || o.mode == waiting && len(*o.buf) >= outCap {
		if err := o.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// send ends the collecting and sends what there is.
func (o *outlet) send() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mode = never
	return o.flush()
}

// flush writes all that waits. o.mu is held.
func (o *outlet) flush() error {
	if o.buf == nil {
		return nil
	}
	if o.err == nil {
		n, err := o.conn.Write((*o.buf)[o.sent:])
		o.sent += n
		o.err = err
	}
	return o.settle()
}

// trySend ends the collecting and sends what the carrier takes now. If that is
// not all, the error is syscall.EAGAIN.
func (o *outlet) trySend() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mode = never
	if o.buf == nil {
		return nil
	}
	n, err := o.raw.Write((*o.buf)[o.sent:])
	o.sent += n
	if o.err = err; err == nil && o.sent < len(*o.buf) {
		return syscall.EAGAIN
	}
	return o.settle()
}

// settle gives the buffer back and returns why writing is broken. o.mu is held.
func (o *outlet) settle() error {
	*o.buf = (*o.buf)[:0]
	outPool.Put(o.buf)
	o.buf, o.sent = nil, 0
	return o.err
}
