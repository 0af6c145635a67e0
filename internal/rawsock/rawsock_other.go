//go:build !unix

// Package rawsock has no sockets on this system.
package rawsock

import "net"

// Socket does not exist here: reads and writes always may wait.
type Socket struct{}

// New returns nil.
func New(net.Conn) *Socket { return nil }

// Write is not called.
func (*Socket) Write([]byte) (int, error) { return 0, nil }

// Read is not called.
func (*Socket) Read([]byte) int { return 0 }
