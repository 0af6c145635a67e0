package multiplex

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// Scenario 9: every id of both sides at once, each echoed and closed by the
// acceptor; then the same again on the same ids.
func TestEveryIDCarriesAChannelAndThenAnother(t *testing.T) {
	n := 6000 // int(lastClientID) takes 8 s
	if testing.Short() || raceEnabled {
		n = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		for _, s := range []*Socket{client, server} {
			s.ids.last = s.ids.next + channel.ID(n-1) // as few ids as channels: the second round must reuse them
			serve(s, func(c *channel.Socket) {
				buf := make([]byte, 32)
				if _, err := io.ReadFull(c, buf); err == nil {
					_, _ = c.Write(buf)
				}
				_ = c.Close()
			})
		}
		for round := range 2 {
			var wg sync.WaitGroup
			for _, s := range []*Socket{client, server} {
				for i := range n {
					wg.Go(func() { echo(t, s, byte(i+round)) })
				}
			}
			wg.Wait()
			settle()
			if a, b := client.Stats().Channels, server.Stats().Channels; a != 0 || b != 0 {
				t.Fatalf("round %d: %d and %d channels are left", round, a, b)
			}
		}
	})
}

// settle waits, in a bubble, until nothing is under way: what a lone application
// leaves unread is read by the patrol, at the latest.
func settle() {
	time.Sleep(lateness + 2*maxPatrol)
	synctest.Wait()
}

func echo(t *testing.T, s *Socket, fill byte) {
	c, err := s.Open(t.Context(), "echo://")
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	want := bytes.Repeat([]byte{fill}, 32)
	_, _ = c.Write(want)
	if got, err := io.ReadAll(c); !bytes.Equal(got, want) || err != nil {
		t.Errorf("channel %d: % x, %v", c.ID(), got, err)
	}
}

// Scenario 10: channel i writes i bytes in one call and closes at once.
func TestEveryByteArrivesBeforeTheEnd(t *testing.T) {
	n := 4000
	if testing.Short() || raceEnabled {
		n = 500
	}
	client, server := pipe(t, Config{})
	size := func(c *channel.Socket) int { return int(c.ID()) & 0x7fff % n }
	var total atomic.Int64
	var wg sync.WaitGroup
	for _, s := range []*Socket{client, server} {
		serve(s, func(c *channel.Socket) {
			defer wg.Done()
			defer c.Close()
			got, err := io.ReadAll(c)
			total.Add(int64(len(got)))
			if err != nil || len(got) != size(c) {
				t.Errorf("channel %d: %d bytes, %v", c.ID(), len(got), err)
			}
		})
	}
	for range n {
		for _, s := range []*Socket{client, server} {
			wg.Add(1)
			c, err := s.OpenEarly(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(make([]byte, size(c)))
			_ = c.Close()
		}
	}
	wg.Wait()
	if want := int64(n * (n - 1)); total.Load() != want {
		t.Errorf("%d bytes arrived, want %d", total.Load(), want)
	}
}

// fault: B5
func TestWithoutFreeIDOnlyTheNewOpenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		client.ids.last = 3
		var socks []*channel.Socket
		for range 3 {
			a, b := between(t, client, server, "x")
			socks = append(socks, a, b)
		}
		if _, err := client.Open(t.Context(), "y"); !errors.Is(err, ErrTooMany) {
			t.Errorf("open: %v", err)
		}
		for i := 0; i < 6; i += 2 {
			_, _ = socks[i].Write([]byte("x"))
			if _, err := socks[i+1].Read(make([]byte, 1)); err != nil {
				t.Errorf("a live channel: %v", err)
			}
		}
		_ = socks[2].Close()
		_ = socks[3].Close()
		synctest.Wait()
		a, b := between(t, client, server, "y")
		if a.ID() != 2 || b.ID() != 2 {
			t.Errorf("the free id 2 was not taken: %d", a.ID())
		}
		synctest.Wait()
		if n := len(client.asking); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}

// An id is taken again only behind a beacon: what the peer still says about
// the old channel cannot reach the new one.
func TestIDIsReusedOnlyBehindABeacon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(2, 0)})
		h.s.ids.last = 1
		c, err := h.s.OpenEarly(t.Context(), "old")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		h.send(h.accept(1, 1<<20), frame{1, nil})
		opened := make(chan *channel.Socket, 1)
		go func() {
			c, _ := h.s.OpenEarly(context.Background(), "new")
			opened <- c
		}()
		fence := h.messages('p')
		if len(fence) != 1 || len(h.requests()) != 1 {
			t.Fatalf("beacons %+v, requests %+v", fence, h.requests())
		}
		h.send(frame{protocolID, encodeGrant(1, 1<<20)}, frame{protocolID, encodeReset(1, 0)}) // of the old one
		h.send(frame{protocolID, encodeBeacon(fence[0].nonce+1, true)})                        // of nothing
		if len(h.requests()) != 1 {
			t.Fatal("another beacon's answer freed the id")
		}
		h.send(frame{protocolID, encodeBeacon(fence[0].nonce, true)})
		c = <-opened
		if c.ID() != 1 || len(h.requests()) != 2 {
			t.Fatalf("id %d, requests %+v", c.ID(), h.requests())
		}
		if n, err := c.Write(fill(earlyCredit)); n != earlyCredit || err != nil {
			t.Errorf("write on the new channel: %d, %v", n, err)
		}
		if err := c.TrySend([]byte("x")); !errors.Is(err, channel.ErrWouldBlock) {
			t.Errorf("credit of the old channel counts for the new one: %v", err)
		}
	})
}

func TestWaitForAnIDEndsWithItsContextOrTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(2, 0)})
		h.s.ids.last = 1
		c, _ := h.s.OpenEarly(t.Context(), "old")
		_ = c.Close()
		h.send(frame{1, nil})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.s.OpenEarly(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("open: %v", err)
		}
		errc := make(chan error)
		go func() {
			_, err := h.s.OpenEarly(context.Background(), "x")
			errc <- err
		}()
		synctest.Wait()
		_ = h.conn.Close()
		if err := <-errc; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("open: %v", err)
		}
	})
}

// fault: C6
func TestPeerThatNeverEndsItsHalfIsForgotten(t *testing.T) {
	facing(t, Config{linger: time.Minute, BeaconInterval: 10 * time.Second, BeaconTimeout: 5 * time.Second}, func(t *testing.T, h *hostile) {
		_ = h.accepted(1).Close()
		h.send(h.open(2, "")) // declined
		kept := h.accepted(3)
		early, err := h.s.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		_ = early.Close()
		h.settle()
		for range 5 {
			h.answerBeacons()
			time.Sleep(11 * time.Second)
			h.alive()
			if n := h.s.Stats().Channels; n != 2 { // early's request is not answered
				t.Fatalf("%d channels", n)
			}
		}
		h.answerBeacons()
		time.Sleep(11 * time.Second)
		h.alive()
		if cs := h.s.Channels(); len(cs) != 1 || cs[0] != kept {
			t.Fatalf("%d channels are left", len(cs))
		}
		if n := len(h.s.ids.retired) + len(h.s.ids.free); n != 0 {
			t.Error("an id may be reused although its old channel has not ended")
		}
		h.send(frame{1, fill(10)}, frame{2, fill(10)}, frame{early.ID(), nil}) // late, and harmless
		h.alive()
		h.send(frame{1, nil}, frame{2, nil})
		h.accepted(2)
		h.accepted(1)
	})
}

// What this side is done with costs the id until the peer has ended its half, which
// may be never.
//
// case: S5
func TestAChannelThatIsOverHereKeepsNothingButItsID(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is not ours")
	}
	const ids = 8000
	for name, decide := range map[string]func(r *Request){
		"declined at once": nil,
		"declined":         func(r *Request) { _ = r.Decline("no") },
		"closed": func(r *Request) {
			if c, err := r.Accept(); err == nil {
				_ = c.Close()
			}
		},
		"reset": func(r *Request) {
			if c, err := r.Accept(); err == nil {
				_ = c.Reset(300)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := net.Pipe()
			defer theirs.Close()
			budget := NewBudget(64 << 20)
			s := Server(ours, Config{Budget: budget, BeaconInterval: -1})
			defer s.Close()
			unanswered := make(chan struct{}, maxAsked)
			go countAnswers(theirs, unanswered)
			name := strings.Repeat("x", 200)
			if decide == nil {
				name += "\n"
			}
			hello := encodeHello(version2, featurePromises)
			_, _ = theirs.Write(append(appendHeader(nil, protocolID, len(hello)), hello...))
			empty := heap()
			for id := range channel.ID(ids) {
				select {
				case unanswered <- struct{}{}:
				case <-s.Done():
				}
				if _, err := theirs.Write(askedEarly(name, id+1)); err != nil {
					t.Fatal(s.Err())
				}
				if decide != nil {
					r, err := s.Accept(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					decide(r)
				}
			}
			per := float64(heap()-empty) / ids
			t.Logf("%.1f bytes for each of %d channels", per, ids)
			if bound := 64.; per > bound {
				t.Errorf("%.1f bytes for each channel, want %v at most", per, bound)
			}
			if n := s.Stats().Channels; n != 0 || budget.tables.Load() != 0 || s.Err() != nil {
				t.Errorf("%d channels, %d bytes of the budget, %v", n, budget.tables.Load(), s.Err())
			}
		})
	}
}

// askedEarly is a request with a byte behind it, and a frame that says nothing.
func askedEarly(name string, id channel.ID) []byte {
	body := request{name: name, id: id, window: 1 << 20}.encode()
	b := append(appendHeader(nil, controlID, len(body)), body...)
	return append(append(appendHeader(b, id, 1), 'x'), appendHeader(nil, controlID, 0)...)
}

// A link that had many channels keeps no room for them, while it has a few.
//
// case: S5
func TestATableGivesItsRoomBack(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is not ours")
	}
	client, server := pipe(t, Config{})
	open := func() (a, b *channel.Socket) {
		a, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = a.Write([]byte("x"))
		r, err := server.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b, err = r.Accept(); err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	first, _ := open()
	empty := heap()
	const n = 8000
	socks := make([]*channel.Socket, 0, 2*n)
	for range n {
		a, b := open()
		socks = append(socks, a, b)
	}
	full := heap()
	for _, s := range socks {
		_ = s.Close()
	}
	for server.Stats().Channels > 1 || client.Stats().Channels > 1 {
		if _, err := client.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if was, is := float64(full-empty)/n, float64(heap()-empty)/n; is > 80 {
		t.Errorf("%.1f of %.1f bytes are kept by both ends for each of %d channels that have ended", is, was, n)
	} else {
		t.Logf("%.1f of %.1f bytes for each", is, was)
	}
}

// countAnswers takes a place out of unanswered for each answer to a request.
func countAnswers(conn net.Conn, unanswered <-chan struct{}) {
	br, head := bufio.NewReader(conn), make([]byte, headerLen)
	for {
		if _, err := io.ReadFull(br, head); err != nil {
			return
		}
		id, n := parseHeader(head)
		_, _ = br.Discard(n)
		if id == controlID {
			<-unanswered
		}
	}
}

// heap returns the bytes of live objects.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fault: C6
func TestPeerOfVersion1ThatNeverEndsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		go h.listen()
		_ = h.accepted(1).Close()
		h.send(frame{1, fill(10)})
		time.Sleep(5*time.Minute + 2*idleTick)
		if n := h.s.Stats().Channels; n != 0 {
			t.Errorf("%d channels are left", n)
		}
		h.alive()
	})
}

// fault: C5
func TestEndsAndResetsMayCross(t *testing.T) {
	acts := map[string]func(*channel.Socket){
		"close":      func(s *channel.Socket) { _ = s.Close() },
		"end":        func(s *channel.Socket) { _ = s.CloseWrite() },
		"end, close": func(s *channel.Socket) { _ = s.CloseWrite(); _ = s.Close() },
		"reset":      func(s *channel.Socket) { _ = s.Reset(300) },
		"end, reset": func(s *channel.Socket) { _ = s.CloseWrite(); _ = s.Reset(300) },
		"write, end": func(s *channel.Socket) { _, _ = s.Write(fill(1000)); _ = s.CloseWrite() },
	}
	for n1, act1 := range acts {
		for n2, act2 := range acts {
			synctest.Test(t, func(t *testing.T) {
				client, server := pipe(t, Config{})
				a, b := between(t, client, server, "x")
				synctest.Wait()
				go act1(a)
				act2(b)
				synctest.Wait()
				_ = a.Close()
				_ = b.Close()
				settle()
				if n, m := client.Stats().Channels, server.Stats().Channels; n != 0 || m != 0 {
					t.Errorf("%s against %s: %d and %d channels are left", n1, n2, n, m)
				}
				if n := client.strays + server.strays; n > 2 {
					t.Errorf("%s against %s: %d late messages", n1, n2, n)
				}
				if client.Err() != nil || server.Err() != nil {
					t.Errorf("%s against %s: %v, %v", n1, n2, client.Err(), server.Err())
				}
			})
		}
	}
}

// Scenario 16, and C5: what was written is readable before the reset.
func TestBytesBeforeAResetAreReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "x")
		_, _ = b.Write(fill(10_000))
		_ = b.Reset(300)
		synctest.Wait()
		got, err := io.ReadAll(a)
		if re, ok := errors.AsType[*channel.ResetError](err); len(got) != 10_000 || !ok || !re.Remote || re.Code != 300 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("write after the peer's reset")
		}
	})
}

// fault: C11
func TestIdleChannelIsSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is not ours")
	}
	client, server := pipe(t, Config{})
	serve(server, func(*channel.Socket) {})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 10_000
	socks := make([]*channel.Socket, n)
	for i := range socks {
		c, err := client.Open(t.Context(), "idle")
		if err != nil {
			t.Fatal(err)
		}
		socks[i] = c
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n / 2
	t.Logf("%d bytes per end", per)
	if per > 2<<10 {
		t.Errorf("an idle channel's end takes %d bytes", per)
	}
	for _, s := range socks { // 10 000 channels × 1 byte
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	runtime.KeepAlive(socks)
}
