package stream

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// lender is a link that lends credit, but for a while.
type lender struct {
	*queue
	lends bool
	owed  atomic.Int64
}

func (l *lender) Advance(n int) int {
	if n > 0 && !l.lends {
		return 0
	}
	l.owed.Add(int64(n))
	return n
}

func TestNothingIsLentToAWriteThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lender{queue: new(queue)}
		s := open(Params{Link: l, Window: 1 << 20})
		done := make(chan struct{})
		go func() {
			_, _ = s.Write(make([]byte, 100))
			close(done)
		}()
		synctest.Wait()
		l.lends = true
		s.Close()
		<-done
		if n := l.owed.Load(); n != 0 {
			t.Errorf("%d bytes are lent", n)
		}
	})
}
