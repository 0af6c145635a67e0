// Package channel is one stream of a link, seen from both sides: [Socket], the
// net.Conn that an application holds, and [Port], the end that the multiplexer
// feeds and drains. [New] returns the two, as io.Pipe does, so that neither
// shows its inside to the other's owner.
//
//	sock, port := channel.New(channel.Params{ID: 1, URI: "chat://bob", Link: line, ...})
//	// the application                     // the multiplexer
//	sock.Write([]byte("hello"))            n, more := port.Pull(frame)
//	sock.Read(buf)                         err := port.Deliver(payload)
//
// The package starts no goroutine and knows nothing of frames. All waiting is
// done here, in the application's calls, or in Link.Lead on their behalf; no
// method of Port blocks, so whoever receives never waits for an application.
//
// # Flow control and limits
//
// A Socket buffers at most the window it has announced, and tells the peer of
// consumed bytes by credit, once a part of the window has been read. A peer that
// sends past its credit is an error of Deliver. Buffers are taken when bytes
// arrive and given back when they are read: an idle channel holds none.
//
// # Ends
//
// Each direction ends once: by a clean end (io.EOF for the reader), by a reset
// (a *ResetError), or with the link (its cause, never io.EOF). Bytes that
// arrived before the end are always readable first.
//
// # Lock order
//
// Socket.mu is taken before any lock of the Link; a Link must not call a Port
// while it holds a lock that its own methods take.
package channel
