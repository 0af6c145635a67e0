//go:build unix

package ice

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// reusePort lets a listener and any number of dials share one TCP port.
func reusePort(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

// canSharePort tells whether a dial from the listener's port is worth trying.
const canSharePort = true

// portTaken tells whether a dial failed because this pair of addresses and
// ports has a connection already: one that was accepted, or an old one that
// the system still remembers.
func portTaken(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE)
}
