//go:build unix

// Package rawsock reads from and writes to a socket of the system without ever
// waiting.
//
//	s := rawsock.New(conn) // nil: conn is no such socket
//	n, err := s.Write(p)   // n < len(p): the socket has no room for the rest
//
// Where the system has no such calls New returns nil.
package rawsock

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Socket is a connection's socket. The two directions may be used at once, each
// by one goroutine at a time. It lives as long as its connection.
type Socket struct {
	conn    syscall.RawConn
	in, out rawCall
}

// rawCall is one direction. Its functions are made once, so that a call
// allocates nothing.
type rawCall struct {
	once func(fd uintptr) bool
	p    []byte
	n    int
	err  error
}

func (c *rawCall) bind(op func(fd int, p []byte) (int, error)) {
	c.once = func(fd uintptr) bool {
		c.n, c.err = op(int(fd), c.p)
		return c.err != syscall.EINTR // true: done, however it went
	}
}

// New returns nil if conn is not a socket of the system.
func New(conn net.Conn) *Socket {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Socket{conn: raw}
	s.in.bind(syscall.Read)
	s.out.bind(syscall.Write)
	return s
}

// Write returns how much the socket took at once; less than all is no error.
func (s *Socket) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c := &s.out
	c.p = p
	err := s.conn.Write(c.once)
	c.p = nil
	switch {
	case err != nil:
		return 0, err
	case c.err == syscall.EAGAIN:
		return 0, nil
	case c.err != nil:
		return 0, &net.OpError{Op: "write", Net: "socket", Err: os.NewSyscallError("write", c.err)}
	case c.n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return c.n, nil
}

// Read returns what has come, or 0 if nothing has or if there is an error,
// which a read that waits will find, too.
func (s *Socket) Read(p []byte) int {
	c := &s.in
	c.p = p
	err := s.conn.Read(c.once)
	c.p = nil
	if err != nil || c.err != nil {
		return 0
	}
	return c.n
}
