// Package control is how a command talks to the daemon that holds its account:
// a socket of this machine, for one user.
//
//	c := control.NewClient(accountFolder)
//	status, err := control.OpStatus.Ask(ctx, c, control.None{})  // a question
//	conn, err := c.Connect(ctx, control.Connect{Device: bob, URI: "chat://bob"})
//	l, err := c.Listen(ctx, "file://*")                      // a net.Listener
//
// Each request is a connection of its own. A connection that asked for a
// channel then carries that channel's bytes, and nothing stands between the
// command and the daemon but the socket. Channels of peers are announced on the
// connection that listens, and each is taken by a new one.
//
// # The wire
//
// The command and then the daemon first send eight bytes: "PLCT" and their
// version, a big-endian uint32. Whoever sees another version ends; nothing else is ever said before,
// so old and new programs understand each other that far.
//
// Then come frames: a kind (one byte), the body's length (three bytes,
// big-endian), the body.
//
//	0  message: JSON. The first one is the command's: {"op":…,"body":…};
//	   the daemon's are {"body":…} or {"error":{"code":…,"text":…}}
//	1  data of the channel
//	2  end: the sender sends no more data
//	3  close: the sender sends no more and reads no more
//	4  reset: both directions are cut off. Code (uint32), flags (a byte:
//	   1 the channel's peer did it, 2 it was no reset, the code means nothing,
//	   4 the daemon ends, as it was told to),
//	   the cause in words
//	5  stop: the sender reads no more; body as of reset
//
// A daemon that ends says so: to whoever waits for an answer by an error of the
// code "ended", to a channel by a reset.
//
// A connection that ends without end, close or reset was cut off: a command
// that is killed never looks like one that had said all.
//
// # Who may speak
//
// The socket's mode is 0600, its folder's 0700, and both sides ask the kernel
// which user is at the other end. Neither reads a byte of another user.
// Descriptors that somebody passes are never received.
//
// # Limits
//
// 640 requests and channels at once, and apart from them 64 of stop and status; more
// wait for 10 s, 64 at most. 256 connections that have not asked yet: one more waits
// for 200 ms at most, then the oldest is ended. 5 s for the greeting and the request; a
// request has at most 1 MiB, an answer 16 MiB, and no more is allocated than has arrived.
package control
