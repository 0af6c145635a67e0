package multiplex

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// Datagrams that are taken whole are not held any more.
func TestTakenDatagramsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := packetPipe(t, 1000, asItIs)
		a, b := between(t, client, server, "x")
		b.TakeDatagram()
		for range 1000 {
			if err := a.SendDatagram(fill(900)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if p := b.TakeDatagram(); len(p) != 900 {
				t.Fatalf("%d bytes taken", len(p))
			}
		}
		server.mu.Lock()
		defer server.mu.Unlock()
		if server.loose != 0 {
			t.Errorf("%d bytes of datagrams count as unread", server.loose)
		}
	})
}

// What was to be sent early and was not is nobody's debt.
func TestEarlyBytesThatAreNotSentAreNoDebt(t *testing.T) {
	for name, end := range map[string]func(c *channel.Socket){
		"closed": func(c *channel.Socket) { _ = c.Close() },
		"ended":  func(c *channel.Socket) { _ = c.CloseWrite() },
		"reset":  func(c *channel.Socket) { _ = c.Reset(300) },
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", before the answer: ", early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, server := within(t, [2]Config{{}, {MaxBuffered: 128 << 10, Window: 64 << 10}}, net.Pipe)
					_ = client.Ready(t.Context())
					c, err := client.OpenEarly(t.Context(), "x")
					if err != nil {
						t.Fatal(err)
					}
					if err := c.WaitSend(60_000); err != nil { // and then something else is to be said
						t.Fatal(err)
					}
					if err := c.TrySend(fill(1000)); err != nil {
						t.Fatal(err)
					}
					if early {
						end(c)
					}
					if early && name == "reset" {
						synctest.Wait()
						checkNothingLeft(t, client)
						return
					}
					r, err := server.Accept(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					far, err := r.Accept()
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if !early {
						end(c)
					}
					_, _ = io.ReadAll(far)
					_, _ = far.Close(), c.Close()
					synctest.Wait()
					checkNothingLeft(t, client, server)
				})
			})
		}
	}
}

func checkNothingLeft(t *testing.T, ss ...*Socket) {
	t.Helper()
	for _, s := range ss {
		s.mu.Lock()
		if s.lent != 0 || s.early != 0 || s.promised != 0 || len(s.table) != 0 {
			t.Errorf("%d bytes lent, %d early, %d promised, to %d channels", s.lent, s.early, s.promised, len(s.table))
		}
		s.mu.Unlock()
	}
}

func TestCreditForEarlyBytesIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(version2, featurePromises)})
		c, err := h.s.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WaitSend(60_000); err != nil {
			t.Fatal(err)
		}
		for range 2 { // unanswered, and then with a debt
			time.Sleep(time.Second)
			h.send(frame{protocolID, encodeAsk(100)})
			if ms := h.messages('u'); len(ms) > 0 {
				t.Errorf("%+v is given back", ms[0].grants)
			}
			h.send(h.accept(c.ID(), 1000))
		}
	})
}

func TestAWholeWindowIsNotGivenBack(t *testing.T) {
	promising(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		h.accepted(1)
		time.Sleep(idleTime)
		h.send(frame{protocolID, encodeAsk(0)})
		if ms := h.messages('u'); len(ms) != 1 || ms[0].grants[0].n >= 1<<20 {
			t.Errorf("%+v is given back", ms)
		}
	})
}

// A message that waits for credit before its channel is accepted gets no credit twice.
func TestNeedsBeforeTheAnswerAreServedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := within(t, [2]Config{{}, {}}, net.Pipe)
		_ = client.Ready(t.Context())
		x, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := x.TrySend(fill(earlyCredit)); err != nil {
			t.Fatal(err)
		}
		c, err := client.OpenEarly(t.Context(), "y")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.TrySend(fill(60_000)); !errors.Is(err, channel.ErrWouldBlock) {
			t.Fatal(err)
		}
		synctest.Wait()
		var far *channel.Socket
		for range 2 {
			r, err := server.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if far, err = r.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(fill(10 << 20))
		var reset *channel.ResetError
		if errors.As(err, &reset) {
			t.Fatalf("%d bytes written: %v", n, err)
		}
		if got, err := io.ReadFull(far, fill(n)); err != nil {
			t.Errorf("%d of %d bytes, %v", got, n, err)
		}
	})
}

// What says that a message waits may overtake the bytes before it.
func TestANeedThatOvertakesDataIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := within(t, [2]Config{{BeaconInterval: -1}, {BeaconInterval: -1}}, func() (a, b net.Conn) { return memPipe(4<<10, 1e6, 10*time.Millisecond) })
		a, b := between(t, client, server, "x")
		synctest.Wait()
		if err := errors.Join(a.WaitSend(100_000), a.TrySend(fill(100_000))); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- a.WaitSend(200_000) }()
		if _, err := io.ReadFull(b, fill(100_000)); err != nil {
			t.Fatal(err)
		}
		getsRoom(t, a, done)
	})
}

// A message that there was no room for gets it when others are over.
func TestNeedsAreServedWhenOthersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{MaxBuffered: 1 << 20, MaxChannels: 300, BeaconInterval: -1}
		client, server := within(t, [2]Config{{BeaconInterval: -1}, cfg}, func() (a, b net.Conn) { return memPipe(1<<20, 0, 0) })
		var far []*channel.Socket
		for range 200 { // and nobody reads
			a, b := between(t, client, server, "idle")
			_ = a.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, _ = a.Write(fill(1 << 20))
			far = append(far, b)
		}
		a, _ := between(t, client, server, "x")
		done := make(chan error, 1)
		go func() { done <- a.WaitSend(200_000) }()
		time.Sleep(time.Second)
		select {
		case <-done:
			t.Fatal("there was room")
		default:
		}
		for _, b := range far {
			_ = b.Close()
		}
		getsRoom(t, a, done)
	})
}

// Each direction of a channel has its own credit: what the opener reads pays no debt.
func TestOnlyGrantsForEarlyBytesCoverThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		little := Config{MaxBuffered: 128 << 10, Window: 64 << 10, MaxChannels: 200}
		client, server := within(t, [2]Config{{}, little}, net.Pipe)
		_ = client.Ready(t.Context())
		a, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(fill(earlyCredit)); err != nil {
			t.Fatal(err)
		}
		r, err := server.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(fill(200_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, fill(200_000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		client.mu.Lock()
		lent := client.lent
		client.mu.Unlock()
		server.mu.Lock()
		defer server.mu.Unlock()
		if lent != server.early || lent == 0 {
			t.Errorf("%d bytes are lent, %d came early", lent, server.early)
		}
	})
}

// Datagrams cost no credit, and so take nothing of what may be sent early.
func TestDatagramsAreNoEarlyBytes(t *testing.T) {
	promising(t, Config{}, func(t *testing.T, h *hostile) {
		h.send(h.open(1, "x"))
		h.s.mu.Lock()
		e := h.s.table[1]
		h.s.mu.Unlock()
		e.stream.DeliverDatagram(fill(1000))
		for n := earlyCredit; n > 0; n -= 1 << 14 {
			h.send(frame{1, fill(1 << 14)})
		}
		if codes := h.resets(1); len(codes) > 0 {
			t.Errorf("reset: %v", codes)
		}
	})
}

// What a peer sent that broke the rules before its request was decided is dropped.
func TestABrokenRequestHoldsNothing(t *testing.T) {
	for name, features := range map[string]uint64{"with promises": featurePromises, "without": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(1 << 20)
				h := newHostile(t, Config{Budget: b}, Server)
				go h.listen()
				h.send(frame{protocolID, encodeHello(version2, features)})
				for id := channel.ID(1); id <= 20; id++ {
					h.send(h.open(id, "x"), frame{id, fill(60_000)}, frame{id, fill(10_000)})
					if codes := h.resets(id); len(codes) != 1 || codes[0] != channel.CodeFlowControl {
						t.Errorf("channel %d: resets %v", id, codes)
					}
					h.send(frame{id, nil})
				}
				h.alive()
				if n := h.s.Stats().Unread; n != 0 {
					t.Errorf("%d bytes are unread", n)
				}
				_ = h.s.Close()
				if b.unread.Load() != 0 || b.held.Load() != 0 || b.extra.Load() != 0 {
					t.Errorf("of the budget %d unread, %d held, %d extra", b.unread.Load(), b.held.Load(), b.extra.Load())
				}
			})
		})
	}
}

// Credit that is all for what was sent early has a message say again what it needs.
func TestNeedsAreSaidAgainAfterAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Client)
		go h.listen()
		h.send(frame{protocolID, encodeHello(version2, featurePromises)})
		c, err := h.s.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(fill(earlyCredit)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.WaitSend(1000) }()
		for i, cover := range []frame{h.accept(c.ID(), 1000), {protocolID, encodeGrant(c.ID(), 2000)}} {
			if ms := h.messages('n'); len(ms) != i+1 {
				t.Errorf("said %d times: %+v", len(ms), ms)
			}
			h.send(cover)
		}
		if ms := h.messages('n'); len(ms) != 3 {
			t.Errorf("said %d times: %+v", len(ms), ms)
		}
		_ = c.Close()
		<-done
	})
}

// A need that was told while there was credit is served when that was given back.
func TestCreditThatIsNeededAfterAllComesAgain(t *testing.T) {
	promising(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		h.accepted(1)
		window := h.requests()[0].window
		h.send(frame{protocolID, encodeNumbers("n", 1, uint64(window))}, frame{protocolID, encodeNumbers("u", 1, uint64(window-1))})
		sum := 1
		for _, m := range h.messages('w') {
			for _, g := range m.grants {
				sum += g.n
			}
		}
		if sum < window {
			t.Errorf("%d bytes of credit, and %d are needed", sum, window)
		}
	})
}

// A request that is accepted while the link closes is promised nothing.
func TestWhatIsAcceptedAtTheEndIsNotPromised(t *testing.T) {
	for name, features := range map[string]uint64{"with promises": featurePromises, "without": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(1 << 20)
				h := newHostile(t, Config{Budget: b}, Server)
				go h.listen()
				h.send(frame{protocolID, encodeHello(version2, features)})
				var rs []*Request
				for id := channel.ID(1); id <= 5; id++ {
					h.send(h.open(id, "x"))
					r, err := h.s.Accept(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					rs = append(rs, r)
				}
				closed := make(chan struct{})
				go func() {
					_ = h.s.Close()
					close(closed)
				}()
				synctest.Wait() // it waits for the peer
				for _, r := range rs {
					if c, err := r.Accept(); err == nil {
						_ = c.Close()
					}
				}
				<-closed
				if b.unread.Load() != 0 || b.held.Load() != 0 || b.extra.Load() != 0 {
					t.Errorf("of the budget %d unread, %d held, %d extra", b.unread.Load(), b.held.Load(), b.extra.Load())
				}
			})
		})
	}
}

// getsRoom holds that a WaitSend on a, whose error comes by done, does not wait for
// ever.
func getsRoom(t *testing.T, a *channel.Socket, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits")
		_ = a.Close()
		<-done
	}
}
