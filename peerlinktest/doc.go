// Package peerlinktest gives a test several devices and a network between them,
// which the test shapes, cuts and heals by the devices' names:
//
//	func TestGreeting(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			n := peerlinktest.New(t)
//			alice, bob := n.Peer("alice"), n.Peer("bob")
//			n.Shape(peerlinktest.Line{Delay: 20 * time.Millisecond}, "alice", "bob")
//			bob.Serve("greet://*", func(c *channel.Socket) { io.Copy(c, c) })
//			c := alice.Connect(bob, "greet://bob")
//			n.Cut("alice", "bob")
//			…
//		})
//	}
//
// Each Peer is a ConnectionManager with keys and trust of its own, and is closed
// when the test ends. In a synctest bubble, delays are exact and cost no time; without one
// they are real. The carrier is in memory, with mutual TLS as over TCP. Package
// loopback has the real ones of this machine, for the same tests.
//
// What can happen to a network:
//
//	Shape              delay, jitter, rate, loss, size of buffers
//	Cut, CutOneWay     nothing arrives, and neither side is told
//	Partition, Down    the same for groups, and for one peer
//	Heal, Up           all goes on; what was written meanwhile arrives
//	Silence            open streams are dead without a word, new ones pass
//	Reset              open streams break at both ends at once, new ones pass
//
// # Limits
//
// A stream is what TCP makes of a line, not TCP: it has no slow start, no
// acknowledgements and no time-outs of its own. It closes as TCP does, but bytes
// that the far end has not read do not turn a Close into a reset. Keys, and so
// device ids, are new in each run.
//
// Leaks: a manager that does not end, a handler of Serve that does not return and
// a stream that is left open fail the test. In a bubble any goroutine does; for a
// whole package in real time, see go.uber.org/goleak.
package peerlinktest
