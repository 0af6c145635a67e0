package multiplex

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// deafConn is one end of a path whose program stops to read.
type deafConn struct {
	*memConn
	deaf   atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.memConn.Read(p)
	if c.deaf.Load() {
		<-c.closed
		return 0, io.ErrClosedPipe
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.memConn.Close()
}

// closing is a channel and what a case does to it before its link is closed.
type closing struct {
	t           *testing.T
	near, there *channel.Socket
	client      *Socket
	far         *deafConn
}

// write writes n bytes, which the path takes.
func (c closing) write(n int) {
	if _, err := c.near.Write(fill(n)); err != nil {
		c.t.Error(err)
	}
}

// read has the far end read n bytes.
func (c closing) read(n int) {
	if _, err := io.ReadFull(c.there, make([]byte, n)); err != nil {
		c.t.Error(err)
	}
	synctest.Wait()
}

// hush has the far end read no more.
func (c closing) hush() {
	synctest.Wait()
	c.far.deaf.Store(true)
}

// A nil from Close says that nothing of what was sent is lost: the peer has
// confirmed all of it, or there was nothing.
func TestCloseSaysWhatThePeerDidNotConfirm(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    Config
		before func(c closing)
		want   error
	}{
		"all was read":         {before: func(c closing) { c.write(1000); c.read(1000) }},
		"all can be read":      {before: func(c closing) { c.write(64 << 10); _ = c.near.CloseWrite() }},
		"nothing was sent":     {before: func(c closing) { c.hush() }},
		"bytes":                {before: func(c closing) { c.hush(); c.write(1) }, want: os.ErrDeadlineExceeded},
		"an end":               {before: func(c closing) { c.hush(); _ = c.near.CloseWrite() }, want: os.ErrDeadlineExceeded},
		"a closed channel":     {before: func(c closing) { c.hush(); _ = c.near.Close() }, want: os.ErrDeadlineExceeded},
		"after other bytes":    {before: func(c closing) { c.write(9); c.read(9); c.hush(); c.write(1) }, want: os.ErrDeadlineExceeded},
		"confirmed by beacons": {before: func(c closing) { c.write(9); c.read(9); time.Sleep(11 * time.Second); c.hush() }},
		"more than the path takes": {before: func(c closing) {
			c.hush()
			go func() { _, _ = c.near.Write(fill(200_000)) }()
			synctest.Wait()
		}, want: os.ErrDeadlineExceeded},
		"the path breaks meanwhile": {before: func(c closing) {
			c.hush()
			c.write(100_000)
			time.AfterFunc(time.Millisecond, func() { _ = c.far.Close() })
		}, want: io.ErrUnexpectedEOF},
		"the path broke before": {before: func(c closing) { c.hush(); c.write(9); _ = c.far.Close(); <-c.client.Done() }},
		"another time":          {cfg: Config{CloseTimeout: time.Minute}, before: func(c closing) { c.hush(); c.write(1) }, want: ErrDead},
		"the older peer leaves": {cfg: Config{Version: 1}, before: func(c closing) { c.write(9); _ = c.far.Close() }},
		"the peer cannot say":   {cfg: Config{Version: 1}, before: func(c closing) { c.hush(); c.write(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memPipe(64<<10, 0, 0)
				far := &deafConn{memConn: b, closed: make(chan struct{})}
				client, server := Client(a, c.cfg), Server(far, Config{Version: c.cfg.Version, BeaconInterval: -1}) // it never gives up
				defer server.Close()
				near, there := between(t, client, server, "x")
				synctest.Wait()
				c.before(closing{t, near, there, client, far})
				began := time.Now()
				errs := make(chan error, 3)
				for range cap(errs) {
					go func() { errs <- client.Close() }()
				}
				for range cap(errs) {
					if err := <-errs; !errors.Is(err, c.want) {
						t.Errorf("%v, want %v", err, c.want)
					}
				}
				if d := time.Since(began); c.cfg.CloseTimeout == 0 && d > time.Second {
					t.Errorf("it took %v", d)
				}
				if err := client.Close(); !errors.Is(err, c.want) {
					t.Errorf("once more: %v, want %v", err, c.want)
				}
			})
		})
	}
}

// Bytes that stand behind a beacon are not confirmed by its answer.
func TestABeaconConfirmsWhatItFollows(t *testing.T) {
	l := line{size: maxBody, round: 1}
	l.pacer.limit = lineCap
	l.wake.L = &l.mu
	first, second := &entry{id: 1}, &entry{id: 2}
	l.push(first, fill(20_000))
	if n := l.ahead(); n != 0 {
		t.Errorf("%d promises are ahead of what overtakes them", n)
	}
	l.take()
	if n := l.ahead(); n != l.promised() || n == 0 {
		t.Errorf("%d of %d promises are ahead of what is queued behind them", n, l.promised())
	}
	l.push(second, fill(20_000))
	if n, all := l.ahead(), l.promised(); n != all-1 {
		t.Errorf("%d of %d promises are ahead, and one waits", n, all)
	}
}
