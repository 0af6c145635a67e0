package channel_test

import (
	"fmt"
	"io"
	"net"

	"peerlink/channel"
)

// printer is a Link that prints. A real one frames the data and sends it.
type printer struct{}

func (printer) Push(p *channel.Port, b []byte) int {
	fmt.Printf("data of channel %d: %q\n", p.ID(), b)
	return len(b)
}

func (l printer) TryPush(p *channel.Port, b []byte) bool { return l.Push(p, b) == len(b) }

func (printer) Tell(p *channel.Port, n channel.Notice) {
	switch n.Kind {
	case channel.Ended:
		fmt.Println("end of channel", p.ID())
	case channel.Stopped:
		fmt.Println("reset of channel", p.ID(), n.Code)
	case channel.Granted:
		fmt.Println("credit for channel", p.ID(), n.N)
	}
}

func (printer) Flush() {}

func (printer) Took(int) (frames int) { return 1 }

func (printer) Note(channel.Event) {}

func (printer) MaxDatagram() int { return 0 }

func (printer) SendDatagram(*channel.Port, []byte) error { return nil }

func (printer) Lead(*channel.Port) bool { return false }

func (printer) Interrupt() {}

func (printer) Expect(int) {}

func (printer) Hold(int) {}

func (printer) Loose(int) bool { return true }

func (printer) Shrink(*channel.Port, int) {}

func (printer) Widen(*channel.Port, channel.Pace) (more, repaid int) { return 0, 0 }

func (printer) MaxPush() int { return 64 << 10 }

func (printer) Room(*channel.Port, int) bool { return true }

func (printer) Overdraw(*channel.Port, int, uint64) bool { return false }

func (printer) Advance(*channel.Port, int) int { return 0 }

func (printer) Addrs() (local, remote net.Addr) { return nil, nil }

// A channel has two ends: the application's and the multiplexer's.
func Example() {
	sock, port := channel.New(channel.Params{ID: 1, URI: "chat://bob", Link: printer{}, Credit: 64 << 10, Window: 64 << 10})

	fmt.Fprint(sock, "hello")
	_ = sock.CloseWrite()

	_, _ = port.Deliver([]byte("good day"))
	port.End()
	b, err := io.ReadAll(sock)
	fmt.Printf("%s, %v\n", b, err)
	// Output:
	// data of channel 1: "hello"
	// end of channel 1
	// good day, <nil>
}
