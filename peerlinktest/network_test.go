package peerlinktest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGreeting(t *testing.T) { synctest.Test(t, greeting) }

var background = context.Background()

// piped runs a test in a bubble, with a stream between two peers over a line.
func piped(t *testing.T, l peerlinktest.Line, test func(t *testing.T, n *peerlinktest.Network, a, b net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		n.Peer("alice")
		n.Peer("bob")
		n.Shape(l)
		a, b := n.Pipe("alice", "bob")
		defer a.Close()
		defer b.Close()
		test(t, n, a, b)
	})
}

func write(t *testing.T, c net.Conn, p []byte) {
	t.Helper()
	if n, err := c.Write(p); n != len(p) || err != nil {
		t.Fatalf("wrote %d of %d bytes, %v", n, len(p), err)
	}
}

func read(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes of %d, equal: %v, %v", n, len(want), bytes.Equal(got, want), err)
	}
}

// within fails the test unless something takes exactly as long as it should.
func within(t *testing.T, want time.Duration, what string, do func()) {
	t.Helper()
	began := time.Now()
	if do(); time.Since(began) != want {
		t.Errorf("%s took %v, want %v", what, time.Since(began), want)
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestAPipeIsANetConn(t *testing.T) {
	for name, l := range map[string]peerlinktest.Line{"plain": {}, "shaped": {Delay: time.Millisecond, Jitter: time.Millisecond, Rate: 64 << 20, Loss: 0.05}} {
		t.Run(name, func(t *testing.T) {
			n := peerlinktest.New(t)
			n.Peer("alice")
			n.Peer("bob")
			n.Shape(l)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = n.Pipe("alice", "bob")
				return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
			})
		})
	}
}

func TestDelayAndRateAreExact(t *testing.T) {
	piped(t, peerlinktest.Line{Delay: 70 * time.Millisecond}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		within(t, 0, "a write", func() { write(t, a, []byte("hello")) })
		within(t, 70*time.Millisecond, "a byte", func() { read(t, b, []byte("hello")) })
		within(t, 140*time.Millisecond, "a round trip", func() {
			write(t, b, []byte("and"))
			read(t, a, []byte("and"))
			write(t, a, []byte("back"))
			read(t, b, []byte("back"))
		})
		n.Shape(peerlinktest.Line{Delay: 5 * time.Millisecond, Rate: 3000, Buffer: 1 << 20}, "alice", "bob") // odd, for the rest of the division
		data := pattern(30_000)
		within(t, 10*time.Second+5*time.Millisecond, "30 000 bytes at 3 000 a second", func() {
			write(t, a, data)
			read(t, b, data)
		})
		within(t, 10*time.Second+5*time.Millisecond, "the same in two streams at once", func() {
			c, d := n.Pipe("alice", "bob")
			defer c.Close()
			defer d.Close()
			write(t, a, data[:15_000])
			write(t, c, data[15_000:])
			read(t, b, data[:15_000])
			read(t, d, data[15_000:])
		})
	})
}

func TestAFullBufferHoldsTheWriterBack(t *testing.T) {
	piped(t, peerlinktest.Line{Buffer: 1000}, func(t *testing.T, _ *peerlinktest.Network, a, b net.Conn) {
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		within(t, time.Second, "a write that nobody reads", func() {
			if n, err := a.Write(make([]byte, 1500)); n != 1000 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("wrote %d, %v", n, err)
			}
		})
		_ = a.SetWriteDeadline(time.Time{})
		read(t, b, make([]byte, 600))
		write(t, a, make([]byte, 600))
	})
}

func TestACutIsSilentAndLosesNoByteOfAStream(t *testing.T) {
	piped(t, peerlinktest.Line{Delay: 10 * time.Millisecond}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		write(t, a, []byte("arrived, "))
		time.Sleep(10 * time.Millisecond)
		write(t, a, []byte("under way, "))
		n.Cut("alice", "bob")
		write(t, a, []byte("cut"))
		_ = a.(interface{ CloseWrite() error }).CloseWrite()
		read(t, b, []byte("arrived, "))
		_ = b.SetReadDeadline(time.Now().Add(time.Hour))
		if k, err := b.Read(make([]byte, 1)); k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v over a cut line", k, err)
		}
		_ = b.SetReadDeadline(time.Time{})
		n.Heal("bob", "alice")
		within(t, 10*time.Millisecond, "what waited", func() {
			if got, err := io.ReadAll(b); err != nil || string(got) != "under way, cut" {
				t.Errorf("read %q, %v", got, err)
			}
		})
		write(t, b, []byte("the other direction is open"))
		read(t, a, []byte("the other direction is open"))
	})
}

func TestOneDirectionIsCut(t *testing.T) {
	piped(t, peerlinktest.Line{}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		n.CutOneWay("alice", "bob")
		write(t, a, []byte("lost"))
		write(t, b, []byte("heard"))
		read(t, a, []byte("heard"))
		_ = b.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestAResetIsSeenAtBothEndsAtOnce(t *testing.T) {
	piped(t, peerlinktest.Line{Delay: time.Second}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		write(t, a, []byte("lost"))
		read := make(chan error, 1)
		go func() { _, err := b.Read(make([]byte, 1)); read <- err }()
		synctest.Wait()
		within(t, 0, "a reset", func() {
			n.Reset("alice", "bob")
			if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the reader got %v", err)
			}
			if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the writer got %v", err)
			}
		})
		c, d := n.Pipe("alice", "bob")
		write(t, c, []byte("new ones pass"))
		_ = c.Close()
		if got, err := io.ReadAll(d); string(got) != "new ones pass" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		_ = d.Close()
	})
}

func TestSilencedStreamsStaySoWhileNewOnesPass(t *testing.T) {
	piped(t, peerlinktest.Line{}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		n.Silence("alice", "bob")
		n.Heal()
		write(t, a, []byte("lost"))
		_ = b.SetReadDeadline(time.Now().Add(24 * time.Hour))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		c, d := n.Pipe("alice", "bob")
		write(t, c, []byte("x"))
		read(t, d, []byte("x"))
		_, _ = c.Close(), d.Close()
	})
}

func TestWritingToAnEndThatClosedFailsWhenThatIsKnown(t *testing.T) {
	piped(t, peerlinktest.Line{Delay: 10 * time.Millisecond}, func(t *testing.T, _ *peerlinktest.Network, a, b net.Conn) {
		write(t, b, []byte("the end"))
		_ = b.Close()
		write(t, a, make([]byte, 1<<20)) // nobody can know
		time.Sleep(10 * time.Millisecond)
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("a write afterwards: %v", err)
		}
		if got, err := io.ReadAll(a); err != nil || string(got) != "the end" {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

// Order and bytes survive losses, jitter, a rate, changes of the line and cuts.
func TestStreamsAreWholeWhateverHappens(t *testing.T) {
	piped(t, peerlinktest.Line{Delay: 30 * time.Millisecond, Jitter: 50 * time.Millisecond, Rate: 1 << 20, Loss: 0.2}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
		data := pattern(4 << 20)
		go func() {
			for p := data; len(p) > 0; {
				k := min(len(p), 1+rand.IntN(10_000))
				if _, err := a.Write(p[:k]); err != nil {
					t.Error(err)
					return
				}
				p = p[k:]
			}
			_ = a.(interface{ CloseWrite() error }).CloseWrite()
		}()
		stop := make(chan struct{})
		var changes sync.WaitGroup
		changes.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-stop:
					return
				}
				n.Cut("alice", "bob")
				time.Sleep(20 * time.Millisecond)
				n.Heal()
				n.Shape(peerlinktest.Line{Delay: time.Duration(i%7) * time.Millisecond, Jitter: time.Millisecond, Rate: 1 << 20, Loss: 0.3})
			}
		})
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, equal: %v, %v", len(got), len(data), bytes.Equal(got, data), err)
		}
		close(stop)
		changes.Wait()
	})
}

// datagrams is what a stream has that carries them.
type datagrams interface {
	SendDatagram(p []byte) error
	ReceiveDatagram(ctx context.Context) ([]byte, error)
}

// received returns how many of n datagrams arrive, and in which order.
func received(t *testing.T, a, b net.Conn, n int) (order []byte) {
	t.Helper()
	for i := range n {
		if err := a.(datagrams).SendDatagram([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	for {
		p, err := b.(datagrams).ReceiveDatagram(ctx)
		if err != nil {
			return order
		}
		order = append(order, p...)
	}
}

func TestDatagramsAreLostAndOvertakeEachOther(t *testing.T) {
	var runs [2][]byte
	t.Setenv(peerlinktest.SeedVariable, "7")
	for i := range runs {
		piped(t, peerlinktest.Line{Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.25}, func(t *testing.T, n *peerlinktest.Network, a, b net.Conn) {
			runs[i] = received(t, a, b, 200)
			if k := len(runs[i]); k < 120 || k > 180 {
				t.Errorf("%d of 200 arrived, a quarter should be lost", k)
			}
			n.Shape(peerlinktest.Line{Delay: time.Millisecond})
			if got := received(t, a, b, 200); len(got) != 200 || got[0] != 0 || got[199] != 199 {
				t.Errorf("without loss %v", got)
			}
			n.Cut("alice", "bob")
			if got := received(t, a, b, 10); len(got) != 0 {
				t.Errorf("over a cut line %v", got)
			}
			n.Heal()
			if got := received(t, a, b, 10); len(got) != 10 {
				t.Errorf("after it %v: what was sent during the cut is gone", got)
			}
		})
	}
	if !bytes.Equal(runs[0], runs[1]) {
		t.Errorf("the same seed, but\n%v\n%v", runs[0], runs[1])
	}
}

// reaches reports whether a peer gets a new channel to another within a minute.
func reaches(from, to *peerlinktest.Peer) bool {
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	c, err := from.ConnectDevice(ctx, to.ID(), "x://", peerlink.ConnectOptions{Mode: peerlink.NewLink})
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func TestPartitionsAreByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		peers := map[string]*peerlinktest.Peer{}
		for _, name := range []string{"alice", "bob", "carol", "dave"} {
			peers[name] = n.Peer(name)
			peers[name].Serve("*", func(c *channel.Socket) { _, _ = io.Copy(io.Discard, c) })
		}
		expect := func(what string, reach func(from, to string) bool) {
			t.Helper()
			var wg sync.WaitGroup
			for from, p := range peers {
				for to, q := range peers {
					if from != to {
						wg.Go(func() {
							if got := reaches(p, q); got != reach(from, to) {
								t.Errorf("%s: %s reaches %s: %v", what, from, to, got)
							}
						})
					}
				}
			}
			wg.Wait()
		}
		all := func(string, string) bool { return true }
		expect("at first", all)
		n.Partition([]string{"alice"}, []string{"bob", "carol"})
		expect("partition", func(from, to string) bool {
			return from != "alice" && to != "alice" || from == "dave" || to == "dave"
		})
		n.Heal()
		expect("healed", all)
		n.Down("carol")
		expect("carol is down", func(from, to string) bool { return from != "carol" && to != "carol" })
		n.Up("carol")
		expect("carol is up", all)
		n.Down("alice")
		n.Cut("bob", "carol", "dave")
		expect("each alone", func(string, string) bool { return false })
		n.Heal()
		expect("healed again", all)
	})
}

func TestWithoutNamesItIsAboutAllPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := n.Peer("alice"), n.Peer("bob")
		alice.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })
		n.Cut()
		if reaches(bob, alice) {
			t.Error("all lines are cut, and bob reaches alice")
		}
		if carol := n.Peer("carol"); !reaches(carol, alice) {
			t.Error("carol came later, and does not reach alice")
		}
		n.Heal()
		c := bob.Connect(alice, "x://")
		n.Reset()
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("after a reset: %v", err)
		}
	})
}

// A first channel takes a round trip for the stream, for TLS, for the hello and for
// the channel; another one takes one. A link may keep a small frame for up to 1 ms.
func TestConnectTakesItsRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := n.Peer("alice"), n.Peer("bob")
		n.Shape(peerlinktest.Line{Delay: 100 * time.Millisecond})
		bob.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(io.Discard, c) })
		for i, trips := range []time.Duration{4, 1} {
			began := time.Now()
			alice.Connect(bob, fmt.Sprint("x://", i))
			if d := time.Since(began); d.Truncate(5*time.Millisecond) != trips*200*time.Millisecond {
				t.Errorf("channel %d took %v, want %d round trips", i, d, trips)
			}
		}
		c := alice.Connections()[0]
		if c.Carrier != "memory" || c.Path.String() != "memory alice→bob" || c.Peer.Device != bob.ID() || c.LocalAddr.String() != "alice" {
			t.Errorf("the link: %+v", c)
		}
	})
}

func TestIdentitiesAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := n.Peer("alice"), n.Peer("bob")
		if err := bob.Trust.Set(alice.ID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		if _, err := alice.ConnectDevice(background, bob.ID(), "x://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrRefused) {
			t.Errorf("a banned device: %v", err)
		}
		_ = bob.Close()
		if _, err := alice.ConnectDevice(background, bob.ID(), "x://", peerlink.ConnectOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed device: %v", err)
		}
		bob = n.PeerAs(bob.Identity)
		bob.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })
		exchange(t, alice.Connect(bob, "x://"), "started again")
		stranger, err := identity.Generate("stranger")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := alice.ConnectDevice(background, stranger.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
			t.Error("connected to a device that is not there")
		}
	})
}

func exchange(t *testing.T, c net.Conn, word string) {
	t.Helper()
	write(t, c, []byte(word))
	read(t, c, []byte(word))
}

// Two carriers in memory are two ways between the same peers, each cut by itself.
func TestOneOfTwoCarriersIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t, peerlinktest.InMemory("lan"), peerlinktest.InMemory("relay"))
		alice, bob := n.Peer("alice"), n.Peer("bob")
		bob.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })
		n.On("relay").Shape(peerlinktest.Line{Delay: 100 * time.Millisecond})
		n.On("lan").Down("alice")
		exchange(t, alice.Connect(bob, "x://1"), "by the relay")
		if c := alice.Connections(); len(c) != 1 || c[0].Carrier != "relay" {
			t.Fatalf("links: %+v", c)
		}
		n.On("lan").Heal()
		n.On("relay").Cut("alice", "bob")
		c, err := alice.ConnectDevice(background, bob.ID(), "x://2", peerlink.ConnectOptions{Carriers: []string{"lan"}})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "by the lan")
	})
}

func TestChannelsHaveTheCarriersDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := n.Peer("alice"), n.Peer("bob")
		got := make(chan string, 1)
		bob.Serve("*", func(c *channel.Socket) {
			buf := make([]byte, 10)
			k, err := c.Read(buf)
			got <- fmt.Sprintf("%s %v", buf[:k], err)
		})
		c := alice.Connect(bob, "game://")
		if err := c.SendUnreliable([]byte("move")); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != "move <nil>" || bob.Metrics().DatagramsReceived != 1 {
			t.Errorf("received %q, %+v", s, bob.Metrics())
		}
	})
}

// The same scripted test runs over each carrier of this machine.
func TestLoopbackCarriersObeyTheNetwork(t *testing.T) {
	for _, c := range append(loopback.Carriers(), peerlinktest.InMemory("memory")) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			n := peerlinktest.New(t, c.Shaped())
			quick := func(c *peerlink.Config) {
				c.Link = multiplex.Config{BeaconInterval: -1, BeaconTimeout: time.Second}
			}
			alice, bob := n.Peer("alice", quick), n.Peer("bob")
			bob.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })
			n.Shape(peerlinktest.Line{Delay: 20 * time.Millisecond})
			conn := alice.Connect(bob, "x://1")
			_ = conn.SetDeadline(time.Now().Add(peerlinktest.Patience))
			began := time.Now()
			exchange(t, conn, "hello")
			if d := time.Since(began); d < 40*time.Millisecond {
				t.Errorf("the echo took %v", d)
			}
			n.Cut("alice", "bob")
			healed := time.AfterFunc(50*time.Millisecond, func() { n.Heal() })
			defer healed.Stop()
			exchange(t, conn, "delayed by a cut")
			if d := time.Since(began); d < 90*time.Millisecond {
				t.Errorf("the echoes took %v", d)
			}
			n.Reset("alice", "bob")
			if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("after a reset: %v", err)
			}
			conn = alice.Connect(bob, "x://2")
			exchange(t, conn, "again")
			n.Silence("alice", "bob")
			alice.ConnectivityChanged()
			_ = conn.SetDeadline(time.Now().Add(peerlinktest.Patience))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, multiplex.ErrDead) {
				t.Errorf("silenced: %v", err)
			}
			exchange(t, alice.Connect(bob, "x://3"), "by a new link")
			n.Down("bob")
		})
	}
}
