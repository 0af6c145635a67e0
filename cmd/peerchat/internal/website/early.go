package website

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// early is a connection to a web server that may answer, and leave, before it has
// read the whole request. What it reads no more is thrown away, so that the
// transport hears of that by Read, behind the answer.
type early struct {
	net.Conn

	mu   sync.Mutex // held during Write
	lost error      // why the server reads no more
}

// Write implements net.Conn.
func (c *early) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return n, err
	}
	if c.lost == nil {
		c.lost = err
	}
	return len(p), nil
}

// Read implements net.Conn. The system tells of a reset once: if a Write was told,
// what Read is told looks like an end.
func (c *early) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.mu.TryLock() {
		defer c.mu.Unlock()
		if errors.Is(c.lost, syscall.ECONNRESET) {
			err = c.lost
		}
	}
	return n, err
}
