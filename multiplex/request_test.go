package multiplex

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// Scenario 7.
func TestAcceptedRequestIsSeenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "git://repo")
		if a.URI() != "git://repo" || b.URI() != "git://repo" || a.ID() != b.ID() || a.ID() != firstClientID {
			t.Errorf("%q %d, %q %d", a.URI(), a.ID(), b.URI(), b.ID())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if r, err := server.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("another request: %v, %v", r, err)
		}
	})
}

// Scenario 8.
func TestDeclineReachesTheOpenerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		good, _ := between(t, client, server, "good")
		go func() {
			r, _ := server.Accept(context.Background())
			if err := r.Decline(strings.Repeat("ü", 200) + "\x1b"); err != nil {
				t.Error(err)
			}
			if err := r.Decline("again"); err == nil {
				t.Error("declined twice")
			}
			if _, err := r.Accept(); err == nil {
				t.Error("accepted after it was declined")
			}
		}()
		_, err := client.Open(t.Context(), "bad")
		no, ok := errors.AsType[*DeclinedError](err)
		if !errors.Is(err, ErrDeclined) || !ok || no.Name != "bad" || no.Reason != strings.Repeat("ü", 127) {
			t.Errorf("open: %v", err)
		}
		synctest.Wait()
		if _, err := good.Write([]byte("x")); err != nil {
			t.Errorf("the healthy channel: %v", err)
		}
		if n, m := client.Stats().Channels, server.Stats().Channels; n != 1 || m != 1 {
			t.Errorf("%d and %d channels", n, m)
		}
	})
}

// What a decline means is its code; the words are for people.
func TestDeclineIsToldApartByItsCode(t *testing.T) {
	for _, c := range []struct {
		cfg        Config
		code, told channel.Code
		none       bool // matches ErrNoListener
	}{
		{code: 0, told: 0},
		{code: channel.CodeNoListener, told: channel.CodeNoListener, none: true},
		{code: channel.CodeClosing, told: channel.CodeClosing},
		{code: 300, told: 300},
		{cfg: Config{Version: 1}, code: channel.CodeNoListener, told: 0}, // it knows no codes
	} {
		synctest.Test(t, func(t *testing.T) {
			client, server := pipe(t, c.cfg)
			go func() {
				if r, err := server.Accept(context.Background()); err != nil || r.DeclineWith(c.code, "no listener") != nil {
					t.Errorf("decline: %v", err)
				}
			}()
			_, err := client.Open(t.Context(), "x")
			no, ok := errors.AsType[*DeclinedError](err)
			if !ok || no.Code != c.told || no.Reason != "no listener" || !errors.Is(err, ErrDeclined) || errors.Is(err, ErrNoListener) != c.none {
				t.Errorf("%v: %#v", c.code, err)
			}
		})
	}
}

func TestEarlyOpenerLearnsOfTheDecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		c, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := c.Write(fill(64 << 10)); n != 64<<10 || err != nil {
			t.Errorf("early write: %d, %v", n, err)
		}
		r, _ := server.Accept(t.Context())
		_ = r.Decline("no")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrDeclined) {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, ErrDeclined) {
			t.Errorf("write: %v", err)
		}
		settle()
		if n, u := server.Stats().Channels, server.Stats().Unread; n != 0 || u != 0 {
			t.Errorf("%d channels, %d bytes are left", n, u)
		}
	})
}

// Scenario 13.
func TestOneNameTwiceIsTwoChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a1, b1 := between(t, client, server, "same")
		a2, b2 := between(t, client, server, "same")
		_, _ = a1.Write([]byte("one"))
		_, _ = a2.Write([]byte("two"))
		for want, s := range map[string]*channel.Socket{"one": b1, "two": b2} { // Scenario 14
			buf := make([]byte, 9)
			if n, err := s.Read(buf); string(buf[:n]) != want || err != nil {
				t.Errorf("%q, %v", buf[:n], err)
			}
		}
	})
}

// fault: B4
func TestBothSidesOpenOneNameAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		ids := make(chan channel.ID, 4)
		for _, s := range []*Socket{client, server} {
			serve(s, func(c *channel.Socket) { ids <- c.ID() })
			go func() {
				c, err := s.Open(context.Background(), "same")
				if err != nil {
					t.Error(err)
				}
				ids <- c.ID()
			}()
		}
		sum := 0
		for range 4 {
			sum += int(<-ids)
		}
		if sum != 2*int(firstClientID)+2*int(firstServerID) {
			t.Error("not two channels of two ends")
		}
	})
}

// Scenario 18. fault: C4
func TestWhatAnOpenerWroteBeforeClosingIsDelivered(t *testing.T) {
	for name, early := range map[string]bool{"early": true, "after the answer": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := pipe(t, Config{})
				opened := make(chan *channel.Socket)
				if early {
					c, err := client.OpenEarly(t.Context(), "note://")
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.WriteString(c, "hello")
					_ = c.Close()
					synctest.Wait() // all of it is there before anybody decides
				} else {
					go func() {
						c, _ := client.Open(context.Background(), "note://")
						_, _ = io.WriteString(c, "hello")
						_ = c.Close()
						close(opened)
					}()
				}
				r, err := server.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s, err := r.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				_ = s.Close()
				settle()
				if n, m := client.Stats().Channels, server.Stats().Channels; n != 0 || m != 0 {
					t.Errorf("%d and %d channels are left", n, m)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // and what is declined leaves nothing
		client, server := pipe(t, Config{})
		c, _ := client.OpenEarly(t.Context(), "note://")
		_, _ = io.WriteString(c, "hello")
		_ = c.Close()
		synctest.Wait()
		r, err := server.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Decline("no"); err != nil {
			t.Fatal(err)
		}
		settle()
		if n, m, u := client.Stats().Channels, server.Stats().Channels, server.Stats().Unread; n != 0 || m != 0 || u != 0 {
			t.Errorf("%d and %d channels, %d bytes are left", n, m, u)
		}
	})
}

// Scenario 33.
func TestOpenThatTimesOutHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		good, far := between(t, client, server, "good")
		go func() {
			r, _ := server.Accept(context.Background())
			time.Sleep(10 * time.Second)
			if _, err := r.Accept(); err == nil {
				t.Error("accepted what was withdrawn")
			}
		}()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := client.Open(ctx, "slow")
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 2*time.Second {
			t.Errorf("open: %v after %v", err, d)
		}
		time.Sleep(time.Minute)
		_, _ = good.Write([]byte("x"))
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Errorf("the other channel: %v", err)
		}
		if n, m := client.Stats().Channels, server.Stats().Channels; n != 1 || m != 1 {
			t.Errorf("%d and %d channels", n, m)
		}
	})
}

// Scenario 36.
func TestNameTooLongFailsItsOwnCallOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		for _, name := range []string{"", strings.Repeat("x", 256), "\xff", "a\nb", "\u2066"} {
			if _, err := client.Open(t.Context(), name); !errors.Is(err, ErrBadName) {
				t.Errorf("%q: %v", name, err)
			}
		}
		a, b := between(t, client, server, strings.Repeat("é", 127)+"x")
		_, _ = a.Write([]byte("x"))
		if _, err := b.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

// Scenario 31. fault: B3
func TestAnswerNobodyAskedForChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(2, 0)})
		h.send(h.accept(1, 1<<20), h.accept(0x8000, 1<<20))
		c, err := h.s.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		h.send(h.accept(c.ID(), 1<<20), h.accept(c.ID(), 1<<20), // twice
			frame{controlID, request{name: "x", id: c.ID(), answer: true, reason: "no"}.encode()}) // and against it
		h.alive()
		if n, err := c.Write(fill(1 << 20)); n != 1<<20 || err != nil { // the window counted once
			t.Errorf("write: %d, %v", n, err)
		}
		if err := c.TrySend([]byte("x")); !errors.Is(err, channel.ErrWouldBlock) {
			t.Errorf("a byte more: %v", err)
		}
		if n := h.s.Stats().Channels; n != 1 {
			t.Errorf("%d channels", n)
		}
	})
}

// fault: B2
func TestUndecidedRequestsAreBounded(t *testing.T) {
	facing(t, Config{MaxPending: 5}, func(t *testing.T, h *hostile) {
		for i := range channel.ID(1000) {
			h.send(h.open(1+i, "x"))
		}
		qs := h.requests()
		if len(qs) != 995 || qs[0].accepted || qs[0].code != channel.CodeResource || !strings.Contains(qs[0].reason, "5 requests wait") {
			t.Fatalf("%d answers, the first: %+v", len(qs), qs[0])
		}
		h.alive()
		for range 5 {
			r, err := h.s.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		h.accepted(2000)
	})
}

func TestChannelsAreBounded(t *testing.T) {
	facing(t, Config{MaxChannels: 3}, func(t *testing.T, h *hostile) {
		for i := range channel.ID(3) {
			h.accepted(1 + i)
		}
		h.send(h.open(4, "x"))
		if qs := h.requests(); len(qs) != 4 || qs[3].accepted || !strings.Contains(qs[3].reason, "no more than 3") {
			t.Errorf("answers %+v", qs)
		}
		if _, err := h.s.Open(t.Context(), "x"); !errors.Is(err, ErrTooMany) {
			t.Errorf("open: %v", err)
		}
	})
}

// fault: B1
func TestOpenAndCancelFloodEndsTheLink(t *testing.T) {
	for name, accept := range map[string]bool{"undecided": false, "accepted": true} {
		t.Run(name, func(t *testing.T) {
			facing(t, Config{}, func(t *testing.T, h *hostile) {
				handlers := 0
				if accept {
					serve(h.s, func(*channel.Socket) { handlers++ })
				}
				n := 0
				for h.send(h.open(1, "x")) && h.send(frame{protocolID, encodeReset(1, channel.CodeCancelled)}) && n < 5000 {
					n++
				}
				<-h.s.Done()
				if !errors.Is(h.s.Err(), ErrProtocol) || accept && handlers == 0 || handlers > 4*maxAsked+1 {
					t.Errorf("ended by %v after %d pairs and %d handlers", h.s.Err(), n, handlers)
				}
			})
		})
	}
}

// An application that gives up often, at a human pace, is no flood.
func TestPatientCancelsAreNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		go func() { // looks at requests and is too slow for all of them
			for {
				if _, err := server.Accept(context.Background()); err != nil {
					return
				}
			}
		}()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if _, err := client.Open(ctx, "x"); err == nil {
					t.Error("opened")
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if err := client.Err(); err != nil {
			t.Error(err)
		}
		if n := len(client.asking); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}

// More opens at once than an acceptor holds wait for their turn; none is declined.
func TestBurstOfOpensWaitsAndSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		var wg sync.WaitGroup
		for range 3000 {
			wg.Go(func() {
				if _, err := client.Open(t.Context(), "x"); err != nil {
					t.Error(err)
				}
			})
		}
		settle()
		if n := server.Stats().Channels; n != maxAsked {
			t.Errorf("%d requests were sent at once", n)
		}
		serve(server, func(*channel.Socket) {})
		wg.Wait()
	})
}

func TestWithdrawnRequestsHoldNoMemory(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		h.send(h.open(1, "x"), frame{1, fill(1000)}, frame{protocolID, encodeReset(1, channel.CodeCancelled)})
		if st := h.s.Stats(); st.Unread != 0 || st.Channels != 0 {
			t.Errorf("%+v", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.s.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestDeclinedChannelsHoldNoMemory(t *testing.T) {
	facing(t, Config{MaxBuffered: 1 << 20, Window: 64 << 10}, func(t *testing.T, h *hostile) {
		for i := range channel.ID(64) {
			h.send(h.open(1+i, "x"), frame{1 + i, fill(60_000)})
			r, err := h.s.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Decline("no"); err != nil {
				t.Fatal(err)
			}
			h.send(frame{1 + i, fill(60_000)}, frame{1 + i, nil}) // still under way: dropped
		}
		h.alive()
		if st := h.s.Stats(); st.Unread != 0 || st.Channels != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestLateDecisionIsNotTakenForAnotherChannel(t *testing.T) {
	facing(t, Config{Window: 64 << 10}, func(t *testing.T, h *hostile) {
		h.send(h.open(1, "old"))
		r, err := h.s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h.send(frame{1, fill(65535)}, frame{1, fill(65535)}) // past the window
		h.send(frame{1, nil})                                // the peer has heard of the reset: the id is free
		h.send(h.open(1, "new"))
		if _, err := r.Accept(); err == nil {
			t.Error("the old request could still be accepted")
		}
		if qs := h.requests(); len(qs) != 0 {
			t.Errorf("the peer was told %+v", qs)
		}
	})
}

// fault: B10
func TestAnswersThatAreNotReadAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		serve(h.s, func(c *channel.Socket) { _ = c.Close() }) // a server that takes everything
		h.send(frame{protocolID, encodeHello(2, 0)})
		n := 0
		for h.send(h.open(1, "x"), frame{1, nil}) && n < 100_000 {
			n++
		}
		<-h.s.Done()
		if !errors.Is(h.s.Err(), ErrProtocol) {
			t.Errorf("ended by %v after %d requests", h.s.Err(), n)
		}
		if n := len(h.s.line.urgent) + len(h.s.line.data); n > 2*maxReplies {
			t.Errorf("%d bytes were queued", n)
		}
	})
}

// fault: C5
func TestEndThatOvertakesTheAnswerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(2, 0)})
		c, err := h.s.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		h.send(frame{c.ID(), []byte("hi")}, frame{c.ID(), nil}, h.accept(c.ID(), 1<<20))
		if got, err := io.ReadAll(c); string(got) != "hi" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_ = c.Close()
		settle()
		if n := h.s.Stats().Channels; n != 0 {
			t.Errorf("%d channels are left", n)
		}
	})
}

func TestPeerThatGoesAwayEndsTheWaitForAnswers(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		errc := make(chan error)
		for range 2 {
			go func() {
				_, err := h.s.Open(context.Background(), "x")
				errc <- err
			}()
		}
		synctest.Wait()
		h.send(frame{protocolID, encodeReset(firstServerID, 300)}) // instead of an answer
		if re, ok := errors.AsType[*channel.ResetError](<-errc); !ok || re.Code != 300 {
			t.Errorf("open: %v", re)
		}
		_ = h.conn.Close()
		if err := <-errc; !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
			t.Errorf("open: %v", err)
		}
	})
}

// The opener of a channel waits for no company of its answer, though the acceptor
// does nothing on it.
func TestAnswerThatIsAwaitedIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		serve(server, func(*channel.Socket) {})
		settle()
		start := time.Now()
		if _, err := client.Open(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d >= lateness {
			t.Errorf("opened after %v", d)
		}
	})
}
