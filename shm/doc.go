// Package shm carries a stream between two processes of one machine through
// memory that both have mapped: no system call while both are busy. It is a
// carrier above localipc, which gives it a proven socket.
//
//	l, err := shm.Listen(shm.Config{}, local)            // local: a *localipc.Listener
//	conn, peer, err := l.Accept(ctx)
//
//	d := &shm.Dialer{Local: &localipc.Dialer{Config: c}} // the service is named "shm"
//	conn, peer, err := d.Dial(ctx, bobsID)
//
// # How it works
//
// The room that proves the devices hands over a connected Unix socket. Through it the
// callee passes a memory region, which it has made, filled and sealed so that
// no process can shrink it, and one end of a second socket. Both map the region, in
// which there is a ring of bytes for each direction (package internal/ring); no
// file and no name is left behind from then on, and the kernel frees it all
// when both processes are gone, however they go.
//
// A ring's end that has to wait looks again for some microseconds, as long as
// that has paid lately, then says so in the region and waits on a socket: the
// first for the ring to the callee, the second for the other. The peer sends one
// byte to it. A process that dies closes its sockets, and that wakes, too.
//
// # A hostile peer
//
// has proven its device, and may still write anything into the region at any
// time. Positions are checked against what is possible, bytes are copied out
// before they are used, no length comes from the region, and nothing in it
// makes this side wait or write elsewhere (ring.ErrCorrupt). It may wake this
// side for nothing; it cannot make a deadline late.
//
// # Limits
//
// Linux, and macOS by way of an unlinked temporary file, which cannot be
// sealed: there an access to a region that the peer has shrunk is caught and
// reported. On other systems Dial and Listen fail with errors.ErrUnsupported.
// A stream takes RegionSize bytes of memory and two descriptors on either side.
// Bytes are as open to the system's administrator as all of a process's memory.
package shm
