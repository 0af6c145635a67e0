package tlssock

import (
	"net"
	"runtime"
	"sync"

	"peerlink/internal/rawsock"
)

const (
	// inCap is how much is read from the carrier with one call once there is a lot.
	inCap = 128 << 10
	// inAhead is how much one read must bring for the next ones to read ahead:
	// more than half a record.
	inAhead = 8 << 10
	// bulkReads is after how many reads that brought less that ends.
	bulkReads = 4
	// maxLooks is how often a read looks, amid a lot of data, until it sleeps:
	// about 10 µs, which gave 15 % more than not to look (BenchmarkBulk).
	maxLooks = 20
)

// inPool keeps the buffers that no connection needs at the moment.
var inPool = sync.Pool{New: func() any { b := make([]byte, inCap); return &b }}

// intake stands between the carrier and TLS, which asks for little more than a
// record at a time. A connection that is quiet holds no buffer: TLS then reads
// into its own.
type intake struct {
	conn net.Conn
	raw  *rawsock.Socket // nil where the carrier cannot be read from without waiting
	bulk int             // how many more reads go ahead of what TLS asks for
	buf  *[]byte         // read ahead; nil if nothing is
	r, w int             // what of it is still to be given to TLS
}

// Read is called by one goroutine at a time: TLS locks.
func (i *intake) Read(p []byte) (int, error) {
	if i.buf == nil {
		if i.bulk == 0 {
			n, err := i.conn.Read(p)
			if n == len(p) && n >= inAhead {
				i.bulk = bulkReads
			}
			return n, err
		}
		i.buf = inPool.Get().(*[]byte)
		n, err := i.readAhead(*i.buf)
		i.r, i.w = 0, n
		if i.bulk--; n > inAhead {
			i.bulk = bulkReads
		}
		if n == 0 {
			i.release()
			return 0, err
		} // an error that came with bytes comes again
	}
	n := copy(p, (*i.buf)[i.r:i.w])
	if i.r += n; i.r == i.w {
		i.release()
	}
	return n, nil
}

// readAhead reads amid a lot of data. The next piece is usually here within
// microseconds, while to sleep and be woken takes both sides longer than that;
// so it looks a few times, and lets others run in between.
func (i *intake) readAhead(p []byte) (int, error) {
	for range i.looks() {
		if n := i.raw.Read(p); n > 0 {
			return n, nil
		}
		runtime.Gosched()
	}
	return i.conn.Read(p)
}

func (i *intake) looks() int {
	if i.raw == nil {
		return 0
	}
	return maxLooks
}

// release gives the buffer back: what comes next may take a while.
func (i *intake) release() {
	inPool.Put(i.buf)
	i.buf = nil
}
