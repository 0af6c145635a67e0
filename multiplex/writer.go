package multiplex

import (
	"io"
	"time"
)

// eagerConn is a conn that can be written to without waiting. WriteNow returns
// how much it has taken. If that is less than all, or the error is
// syscall.EAGAIN, a part has to wait: then Write is called with the rest of p,
// which may be nothing, and waits until all is sent. docs/carriers.md has the
// contract of this and of the other optional methods.
type eagerConn interface {
	WriteNow(p []byte) (int, error)
}

// lateness is how long frames that nobody waits for, or that an application's
// own bytes are likely to follow at once, wait for company.
const lateness = time.Millisecond

// maxRounds is how many batches a flush writes before the writer takes over: it
// sends what others have queued meanwhile, but is not captured by them.
const maxRounds = 4

// maxInline is how many goroutines may wait for the peer where each that writes
// still sends by itself. Where there are more, their frames go together.
const maxInline = 2

// flush sends what is queued, or sees to it that it will be sent. It never
// waits: where the conn has no room, the writer goes on. No lock may be held.
func (s *Socket) flush() {
	s.quench()
	switch s.line.claim(s.baton.expected.Load() <= maxInline) {
	case sendNow:
		s.send()
	case sendLater:
		s.later.Reset(lateness)
	}
}

// send writes batches as long as the conn takes them without waiting.
func (s *Socket) send() {
	for range maxRounds {
		if !s.line.take() {
			return
		}
		s.pull()
		if !s.writeNow(&s.line.batch) {
			break
		}
	}
	s.line.handOver()
}

// pull fills the batch.
func (s *Socket) pull() {
	s.line.pull()
	if b := &s.line.batch; b.staged+len(b.rest[1]) >= gatherLen {
		s.baton.sawBulk()
	}
}

// writeNow writes as much of the batch as the conn takes at once, and reports
// whether that was all.
func (s *Socket) writeNow(b *batch) bool {
	sum := 0
	for i, p := range b.rest {
		if len(p)+b.staged == 0 {
			continue
		}
		n, err := s.eager.WriteNow(p)
		sum += s.wrote(b, n)
		b.rest[i] = p[n:]
		if err != nil || n < len(p) {
			return false // a lasting error comes again when the writer writes
		}
	}
	s.line.took(sum, 0)
	return true
}

// writeLoop is the writer: it writes where that may have to wait.
func (s *Socket) writeLoop() {
	defer close(s.writerDone)
	for {
		left, ok := s.line.await()
		if !ok {
			return
		}
		for left || s.line.take() {
			if !left {
				s.pull()
			}
			begun := time.Now()
			n, err := s.writeBatch(&s.line.batch, left)
			if err != nil {
				s.writeFailed(transportError("write", err))
				return
			}
			s.line.took(n, time.Since(begun))
			left = false
		}
	}
}

// writeBatch writes what is left of the batch, and returns how much that was.
func (s *Socket) writeBatch(b *batch, left bool) (sum int, err error) {
	for _, p := range b.rest {
		if len(p)+b.staged == 0 && !left {
			continue
		}
		n, err := s.conn.Write(p)
		sum += s.wrote(b, n)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// wrote counts what a write of n bytes has sent, with what was staged, and
// returns how much that was.
func (s *Socket) wrote(b *batch, n int) int {
	n = max(n, 0) + b.staged
	b.staged = 0
	s.stats.bytesOut.Add(uint64(n))
	return n
}

// writeFailed leaves the end to the reader, for a while: what the peer sent
// before the connection broke, its reason perhaps, is still to be read.
func (s *Socket) writeFailed(err error) {
	s.mu.Lock()
	s.writeErr = err
	s.mu.Unlock()
	time.AfterFunc(s.cfg.CloseTimeout, func() { s.fail(err) })
}
