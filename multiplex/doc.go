// Package multiplex puts many channels on one net.Conn.
//
// It knows a reliable, ordered byte stream and nothing of devices, TLS or how
// the stream came about. Each side opens channels under a name, the other
// accepts or declines, and both hold a *channel.Socket, a net.Conn.
//
//	client := multiplex.Client(conn, multiplex.Config{})
//	sock, err := client.Open(ctx, "file://photo.jpg")
//
//	server := multiplex.Server(conn, multiplex.Config{})
//	req, err := server.Accept(ctx)
//	if req.Name() == "file://photo.jpg" {
//		sock, err = req.Accept()
//	} else {
//		err = req.Decline("no such file")
//	}
//
// # Guarantees
//
// One slow channel stalls no other: each has credit of its own, and whoever
// reads the conn never waits for an application. Memory is bounded whatever the
// peer does: by the window of each channel, by Config.MaxBuffered over all of
// them, by Config.Budget over several links, by the number of channels and of
// undecided requests, and by the queue of control messages. Small writes go
// ahead of bulk; data of channels that wait is sent in turns of one frame. A link
// that was busy gives its buffers back; idle, it holds 2 KiB to read into and
// about 430 bytes per channel.
//
// A peer that breaks the protocol ends the link and is told why; one that sends
// past its credit loses that channel alone. Errors of the transport are never
// io.EOF.
package multiplex

// Goroutines and locks. Where the conn has a WriteNow method, which never waits, a
// Write sends by itself; otherwise, and for what has to wait, a Socket has a writer.
// Where a single application waits in Read, it receives for the link; otherwise a
// goroutine of the Socket does (see baton). Timers keep liveness, which no
// blocked write delays. Lock order: stream.Stream.mu, then Socket.mu (the table of
// channels), then line.mu (what waits to be written). No lock is held during I/O,
// and none while a Stream is called, except that a channel's own lock is held when
// it calls its Link.
