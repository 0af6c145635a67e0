//go:build unix

package localipc

import (
	"net"
	"os"
	"syscall"
)

// nowWriter writes to a socket without ever waiting for room.
type nowWriter struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // made once, so that a write allocates nothing
	p    []byte
	n    int
	err  error
}

// newNowWriter returns nil if conn is not a socket of the system.
func newNowWriter(conn net.Conn) *nowWriter {
	sc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &nowWriter{raw: raw}
	w.once = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.p)
			if w.err != syscall.EINTR {
				return true // done, however it went
			}
		}
	}
	return w
}

func (w *nowWriter) write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.p = p
	err := w.raw.Write(w.once)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, nil
	case w.err != nil:
		return 0, &net.OpError{Op: "write", Net: "unix", Err: os.NewSyscallError("write", w.err)}
	}
	return w.n, nil
}
