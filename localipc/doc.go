// Package localipc reaches devices that run on the same machine: over a Unix
// stream socket in the user's runtime folder, or a named pipe on Windows. It is
// a carrier; its streams cost no encryption.
//
//	cfg := localipc.Config{Identity: me, Trust: trust}
//	l, err := localipc.Listen(ctx, cfg)      // be found on this machine
//	conn, peer, err := l.Accept(ctx)
//
//	d := &localipc.Dialer{Config: cfg}
//	conn, peer, err := d.Dial(ctx, bobsID)   // an id is enough
//
// # The folder
//
// Config.Dir, which is $XDG_RUNTIME_DIR/peerlink, or peerlink-UID in the folder
// for temporary files, or peerlink/run in the user's cache folder where another user
// has taken that one, belongs to its user and is closed to others (0700). A device that listens has three files there, named after the first 32
// digits of its id:
//
//	NAME.lock   locked (flock) as long as the device listens: the only sign of life
//	NAME.sock   the socket
//	NAME.peer   an announcement, signed by the device: its id, what it offers
//
// Listen takes the lock first. Then, and only then, what a dead process left
// under that name is removed, and the names of other dead devices with it; what
// is not a socket or file of this user under such a name is never touched.
// Close removes all three.
//
// # What is proven
//
// The kernel says which process is at the other end: its user must be this one
// before a byte is read. Then both devices prove themselves: each signs both
// sides' fresh nonces, both ids and its own process and user id, which the other
// compares with what the kernel said. So a process that stands in between, with
// a socket to either side, cannot pass on another's proof. The caller proves
// itself first; the trust store is asked on both sides; the stream is handed out
// when both have agreed.
//
// After that bytes go in the clear: a process that could read them could also read the
// memory of both processes.
//
// # Limits
//
// Both processes must see each other's process ids, so a container with a PID
// namespace of its own is refused (with that reason). io.EOF means that
// the peer ended or died: the kernel does not tell which. Named pipes are
// for one user, too, and devices cannot be listed.
package localipc
