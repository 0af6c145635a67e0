// Package carriertest tests carriers: a peerlink.Dialer and its peerlink.Listener.
// An author runs it as golang.org/x/net/nettest is run:
//
//	func TestCarrier(t *testing.T) {
//		rows := carriertest.Run(t, carriertest.Carrier{Name: "mine", Make: func(
//			ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust,
//		) (*carriertest.Endpoint, error) {
//			l, err := mine.Listen(ctx, id, trust)
//			if err != nil {
//				return nil, err
//			}
//			d := &mine.Dialer{Identity: id, Trust: trust, Lookup: site.Address}
//			return &carriertest.Endpoint{Dialer: d, Listeners: []peerlink.Listener{l}},
//				site.Announce(id.DeviceID(), l.Addr().String())
//		}})
//		t.Log("\n" + carriertest.Table(rows))
//	}
//
// Run holds two things. The first are the rules of Dialer and Listener: what Dial
// and Accept return and when, that both devices are proven, that a device
// without trust gets nothing, what a stream does with much at once, deadlines and
// Close, and that no goroutine is left. Each optional method that a stream has
// (WriteNow, Stage, FrameSize, CloseWrite, datagrams, Path; docs/carriers.md says
// what they are for) is held to its rules, too.
//
// The second is a table: what becomes of written bytes. A channel is opened over
// the carrier, its writer's Write returns, and the channel is ended in each of many
// ways, by each side, with a reader that reads all the time (fast), a piece before
// the end has begun (slow), or nothing before the end is over (absent). Right is:
// all bytes and then the true end, which is io.EOF only if the writer ended its
// direction; or an error on both sides. Wrong are fewer bytes and io.EOF, a call
// that promises delivery and returns nil for lost bytes, a writer that hears only
// success of them, an end that no side made, and a side that is never told.
//
// The table of peerlink's own carriers is printed by
//
//	go test ./carriertest -run TestTable -v
//
// A cell reads "whole, EOF | closed | end: time is up": the reader had all bytes
// and a clean end, the writer heard that its channel is closed, and the ending call
// returned a time-out. A "!" before it says that this is wrong.
//
// # Limits
//
// Two devices, in one process but for the way “process killed”, on one machine. The
// network is the machine's own and loses nothing; a cell has 30 s, and 4 of a
// carrier run at a time. The tests of a carrier need about 100 links.
package carriertest
