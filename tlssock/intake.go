package tlssock

import (
	"net"
	"sync"
)

// inCap is how much is read from the carrier with one call once there is a lot.
const inCap = 128 << 10

// inPool keeps the buffers that no connection needs at the moment.
var inPool = sync.Pool{New: func() any { b := make([]byte, inCap); return &b }}

// intake stands between the carrier and TLS, which asks for little more than a
// record at a time. A connection that is quiet holds no buffer: TLS then reads
// into its own.
type intake struct {
	conn net.Conn
	many bool    // the last read was full: there is more than TLS asks for
	buf  *[]byte // read ahead; nil if nothing is
	r, w int     // what of it is still to be given to TLS
}

// Read is called by one goroutine at a time: TLS locks.
func (i *intake) Read(p []byte) (int, error) {
	if i.buf == nil {
		if !i.many {
			n, err := i.conn.Read(p)
			i.many = n == len(p)
			return n, err
		}
		i.buf = inPool.Get().(*[]byte)
		n, err := i.conn.Read(*i.buf)
		i.r, i.w = 0, n
		i.many = n > len(p)
		if n == 0 {
			i.release()
			return 0, err
		} // an error beside bytes comes again
	}
	n := copy(p, (*i.buf)[i.r:i.w])
	if i.r += n; i.r == i.w {
		i.release()
	}
	return n, nil
}

// release gives the buffer back: what comes next may take a while.
func (i *intake) release() {
	inPool.Put(i.buf)
	i.buf = nil
}
