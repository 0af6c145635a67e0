//go:build !linux && !darwin

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func selfUser() int { return os.Geteuid() }

// peerOf: nothing but a connection within this process comes here.
func peerOf(net.Conn) (uid, pid int, err error) { return os.Geteuid(), os.Getpid(), nil }

func dialDaemon(context.Context, string) (net.Conn, error) {
	return nil, fmt.Errorf("%w: %w on this system", ErrNoDaemon, errors.ErrUnsupported)
}

// Bind is not supported on this system: a daemon needs peer credentials.
func Bind(string) (net.Listener, error) {
	return nil, fmt.Errorf("control socket: %w on this system", errors.ErrUnsupported)
}

// Adopt is not supported on this system.
func Adopt(string, net.Listener) (net.Listener, error) {
	return nil, fmt.Errorf("control socket: %w on this system", errors.ErrUnsupported)
}
