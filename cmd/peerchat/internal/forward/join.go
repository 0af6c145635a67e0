package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"peerlink/internal/pause"
)

const (
	bufferLen = 64 << 10
	// lingerPause is how often a connection that is to be cut is asked whether all
	// that was written to it has arrived.
	lingerPause = 5 * time.Millisecond
)

// join copies both ways until both directions have ended, and closes both. The
// end of one is passed on. An end that takes no more is still read: a server may
// answer, and leave, before it has read all that is sent to it. What is for it is
// thrown away meanwhile. An end that fails cuts the other one off, behind what
// was written to that; the end of ctx cuts both at once.
func join(ctx context.Context, a, b net.Conn) error {
	both := func() { cut(a); cut(b) }
	stop := context.AfterFunc(ctx, both)
	defer stop()
	news := make(chan error, 4)
	there, back := &flow{to: b, from: a, news: news}, &flow{to: a, from: b, news: news}
	there.back, back.back = back, there
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(there.run)
	wg.Go(back.run)
	var err error
	for ended := 0; ended < 2 && err == nil; ended++ {
		err = <-news
	}
	if err == nil {
		err = errors.Join(there.lostBy(), back.lostBy())
	}
	if err == nil {
		return errors.Join(a.Close(), b.Close())
	}
	wg.Go(func() { linger(ctx, a); cut(a) })
	linger(ctx, b)
	cut(b)
	return err
}

// flow is one direction of a join.
type flow struct {
	to, from net.Conn
	back     *flow
	news     chan<- error // nil: from has ended, or to takes no more; else from has failed

	mu   sync.Mutex // held during to.Write
	lost error      // why to takes no more
}

// run copies, and passes on the end.
func (f *flow) run() {
	_, err := io.CopyBuffer(f, struct{ io.Reader }{f.from}, make([]byte, bufferLen))
	switch {
	case f.lost != nil:
		f.news <- nil // the other direction may go on
		if _, err := io.Copy(io.Discard, f.from); err != nil {
			f.news <- err
		}
	case err == nil && f.back.wasReset():
		f.news <- syscall.ECONNRESET
	case err == nil:
		f.lose(f.end())
		f.news <- nil
	default:
		f.news <- err
	}
}

// Write implements io.Writer, for run.
func (f *flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.to.Write(p)
	f.lost = err
	return n, err
}

// end passes on the end of from.
func (f *flow) end() error {
	w, ok := f.to.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("forward: a connection without half-close")
	}
	return w.CloseWrite()
}

func (f *flow) lose(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = err
}

func (f *flow) lostBy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

// wasReset tells that the end which to.Read has told is none: the system tells of
// a reset once, and a Write was told.
func (f *flow) wasReset() bool {
	c, ok := f.to.(*net.TCPConn)
	switch {
	case !ok:
		return false
	case dead(c): // a Write under way returns at once
		f.mu.Lock()
	case !f.mu.TryLock():
		return false
	}
	defer f.mu.Unlock()
	return errors.Is(f.lost, syscall.ECONNRESET)
}

// linger waits until a TCP connection has brought all that was written to it, for
// lingerTime at most: a reset overtakes that.
func linger(ctx context.Context, c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	defer cancel()
	for !arrived(tcp) && pause.For(ctx, lingerPause) == nil {
	}
}
