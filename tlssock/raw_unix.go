//go:build unix

package tlssock

import (
	"io"
	"net"
	"os"
	"syscall"
)

// rawWriter writes to a socket without ever waiting for room.
type rawWriter struct {
	conn syscall.RawConn
	once func(fd uintptr) bool // made once, so that a write allocates nothing
	p    []byte
	n    int
	err  error
}

// newRawWriter returns nil if conn is not a socket of the system.
func newRawWriter(conn net.Conn) *rawWriter {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &rawWriter{conn: raw}
	w.once = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.p)
		return w.err != syscall.EINTR // true: done, however it went
	}
	return w
}

// write returns how much the socket took at once; less than all is no error.
func (w *rawWriter) write(p []byte) (int, error) {
	w.p = p
	err := w.conn.Write(w.once)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, nil
	case w.err != nil:
		return 0, &net.OpError{Op: "write", Net: "socket", Err: os.NewSyscallError("write", w.err)}
	case w.n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return w.n, nil
}
