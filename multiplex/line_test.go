package multiplex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// pipe runs both sides of a link over net.Pipe inside a bubble.
func pipe(t testing.TB, cfg Config) (client, server *Socket) {
	t.Helper()
	a, b := net.Pipe()
	client, server = Client(a, cfg), Server(b, cfg)
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// serve takes every channel of a side and gives it to f, on a goroutine of its own.
func serve(s *Socket, f func(*channel.Socket)) {
	go func() {
		for {
			r, err := s.Accept(context.Background())
			if err != nil {
				return
			}
			if sock, err := r.Accept(); err == nil {
				go f(sock)
			}
		}
	}()
}

// between opens a channel and returns both ends.
func between(t testing.TB, from, to *Socket, name string) (opener, acceptor *channel.Socket) {
	t.Helper()
	opener, err := from.OpenEarly(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := to.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if acceptor, err = r.Accept(); err != nil {
		t.Fatal(err)
	}
	return opener, acceptor
}

// random returns n reproducible bytes.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// Scenario 22: 3 channels × 2 600 writes of 8 000 bytes, interleaved.
func TestInterleavedWritesKeepTheirChannel(t *testing.T) {
	client, server := pipe(t, Config{})
	sums := make(chan [2]string, 3)
	serve(server, func(s *channel.Socket) {
		h := sha256.New()
		_, _ = io.Copy(h, s)
		sums <- [2]string{s.URI(), string(h.Sum(nil))}
		s.Close()
	})
	want := map[string]string{}
	var socks []*channel.Socket
	for i := range byte(3) {
		name := string('a' + rune(i))
		s, err := client.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		socks = append(socks, s)
		h := sha256.New()
		for k := range 2600 {
			h.Write(random(i+byte(k), 8000))
		}
		want[name] = string(h.Sum(nil))
	}
	for k := range 2600 {
		for i, s := range socks {
			if n, err := s.Write(random(byte(i+k), 8000)); n != 8000 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	for _, s := range socks {
		_ = s.Close()
	}
	for range 3 {
		if sum := <-sums; want[sum[0]] != sum[1] {
			t.Errorf("channel %s has other content", sum[0])
		}
	}
}

// fault: A9, A10
func TestWritesOfAnySizeArriveWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "x")
		for _, n := range []int{0, 1, cutBody - 1, cutBody, cutBody + 1, 65535, 65536, 10 << 20, 16 << 20} {
			p := random(1, n)
			go func() {
				if k, err := a.Write(p); k != n || err != nil {
					t.Errorf("write of %d: %d, %v", n, k, err)
				}
			}()
			got := make([]byte, n)
			if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, p) {
				t.Errorf("read of %d: %v", n, err)
			}
		}
		_ = a.CloseWrite() // nothing but the end comes after a write of nothing
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
	})
}

// Scenario 65: many small messages back to back.
func TestSmallMessagesKeepTheirOrder(t *testing.T) {
	client, server := pipe(t, Config{})
	a, b := between(t, client, server, "x")
	go func() {
		for i := range uint64(50_000) {
			_, _ = a.Write(binary.BigEndian.AppendUint64(nil, i))
		}
		_ = a.CloseWrite()
	}()
	var buf [8]byte
	for i := range uint64(50_000) {
		if _, err := io.ReadFull(b, buf[:]); err != nil || binary.BigEndian.Uint64(buf[:]) != i {
			t.Fatalf("message %d: %v, %v", i, buf, err)
		}
	}
}

func TestConcurrentWritesAreNotMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "x")
		var wg sync.WaitGroup
		for i := range byte(8) {
			wg.Go(func() { _, _ = a.Write(bytes.Repeat([]byte{i}, 300_000)) })
		}
		go func() {
			wg.Wait()
			_ = a.CloseWrite()
		}()
		got, err := io.ReadAll(b)
		if len(got) != 8*300_000 || err != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		for i := 0; i < len(got); i += 300_000 {
			if p := got[i : i+300_000]; !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
				t.Errorf("the write at %d is mixed with another", i)
			}
		}
	})
}

// fault: C1
func TestOneStalledReaderStallsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		const others = 100
		stalled, unread := between(t, client, server, "stalled")
		n := make(chan int, 1)
		go func() {
			k, _ := stalled.Write(fill(4 << 20))
			n <- k
		}()
		var wg sync.WaitGroup
		for range others {
			a, b := between(t, client, server, "busy")
			wg.Go(func() {
				_, _ = a.Write(fill(1 << 20))
				_ = a.CloseWrite()
			})
			wg.Go(func() {
				if k, err := io.Copy(io.Discard, b); k != 1<<20 || err != nil {
					t.Errorf("%d bytes, %v", k, err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if u := server.Stats().Unread; u != 256<<10 {
			t.Errorf("%d bytes are unread, want the window", u)
		}
		if st := stalled.Stats(); st.BytesSent != 256<<10 || st.Stalls == 0 {
			t.Errorf("the stalled sender: %+v", st)
		}
		_ = unread.Close()
		if k := <-n; k != 256<<10 {
			t.Errorf("the stalled Write sent %d", k)
		}
	})
}

// A channel that always has data must not delay another's frame by more than
// its turn.
func TestTurnsAreOfOneFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Server)
		h.send(frame{protocolID, encodeHello(2, 0)})
		var socks []*channel.Socket
		for i := range channel.ID(3) {
			socks = append(socks, h.accepted(1+i))
		}
		for _, s := range socks {
			go s.Write(fill(1 << 20))
			synctest.Wait()
		}
		go h.listen()
		synctest.Wait()
		last, run := channel.ID(0), 0
		h.mu.Lock()
		defer h.mu.Unlock()
		var turns int
		for i, f := range h.got {
			if f.id == controlID || f.id == protocolID || i < 25 { // the first fill the line alone
				continue
			}
			if f.id == last {
				run++
			} else {
				last, run, turns = f.id, 1, turns+1
			}
			if run > 2 && turns > 3 && turns < 60 {
				t.Fatalf("frame %d: channel %d has %d turns in a row", i, last, run)
			}
		}
		if turns < 60 {
			t.Errorf("only %d changes of channel", turns)
		}
	})
}

// fault: C11
func TestSmallReadsAreGrantedTogether(t *testing.T) {
	facing(t, Config{Window: 64 << 10}, func(t *testing.T, h *hostile) {
		sock := h.accepted(1)
		for range 10 {
			h.send(frame{1, fill(16 << 10)})
			_, _ = io.ReadFull(sock, make([]byte, 1))
			for i := 1; i < 16<<10; i += 5 {
				_, _ = io.ReadFull(sock, make([]byte, min(5, 16<<10-i)))
			}
		}
		grants, n := 0, 0
		for _, m := range h.messages('w') {
			grants++
			n += m.grants[0].n
		}
		if grants != 5 || n > 160<<10 {
			t.Errorf("%d grants of %d bytes together", grants, n)
		}
	})
}

// Scenario 64.
func TestTrySendIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "x")
		sent := 0
		p := fill(1000)
		for {
			synctest.Wait() // the line runs dry: only the credit can be missing
			err := a.TrySend(p)
			if errors.Is(err, channel.ErrWouldBlock) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent += len(p)
		}
		if sent != 262_000 {
			t.Errorf("%d bytes were taken", sent)
		}
		synctest.Wait()
		if st := b.Stats(); st.Unread != sent {
			t.Errorf("%d bytes arrived of %d", st.Unread, sent)
		}
		_, _ = io.ReadFull(b, make([]byte, sent))
		synctest.Wait()
		if err := a.SendUnreliable(p); err != nil {
			t.Errorf("after the reader went on: %v", err)
		}
		if n, err := io.ReadFull(b, make([]byte, len(p))); n != len(p) || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
	})
}

// What a burst needed is given back: an idle link keeps its read buffer and
// little more.
func TestIdleLineHoldsNoBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		var wg sync.WaitGroup
		for range 1000 {
			a, b := between(t, client, server, "x")
			wg.Go(func() { _, _ = a.Write(fill(50_000)); _ = a.Close() })
			wg.Go(func() { _, _ = io.Copy(io.Discard, b); _ = b.Close() })
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, s := range []*Socket{client, server} {
			l := &s.line
			l.mu.Lock()
			if n := cap(l.data) + cap(l.spare) + cap(l.urgent) + 8*cap(l.ready); n > 16<<10 {
				t.Errorf("an idle line holds %d bytes", n)
			}
			l.mu.Unlock()
		}
	})
}

// What TrySend is told to be taken is taken, also where a slow conn has made
// batches small.
func TestTryPushTakesAllOnASlowLine(t *testing.T) {
	l := line{size: cutBody, pacer: pacer{limit: minCap}}
	l.wake.L = &l.mu
	e := &entry{id: 1}
	if !l.tryPush(e, fill(100_000)) || len(l.data) != 100_000+7*headerLen {
		t.Errorf("%d bytes wait", len(l.data))
	}
	if l.tryPush(e, fill(lineCap-100_000)) || len(l.data) != 100_000+7*headerLen {
		t.Errorf("more than the line takes: %d bytes wait", len(l.data))
	}
}

func TestFittingInvertsFraming(t *testing.T) {
	for _, room := range []int{-1 << 20, -1, 0, 1, headerLen, headerLen + 1, cutBody, cutBody + headerLen, cutBody + headerLen + 1, lineCap, lineCap - 1} {
		n := frameSize(cutBody).fitting(room)
		if n < 0 || len(frameSize(cutBody).appendFrames(nil, 1, fill(n))) > max(room, 0) {
			t.Errorf("%d bytes are said to fit into %d", n, room)
		}
		if len(frameSize(cutBody).appendFrames(nil, 1, fill(n+1))) <= room {
			t.Errorf("more than %d bytes fit into %d", n, room)
		}
	}
}

// fault: B10
func TestLineTakesDataBehindAnyAmountOfEnds(t *testing.T) {
	l := line{size: cutBody, pacer: pacer{limit: lineCap}}
	l.wake.L = &l.mu
	for id := range channel.ID(30_000) {
		l.inOrder(id, encodeReset(id, 0), prompt)
	}
	e := &entry{id: 1}
	if n := l.push(e, fill(100)); n != 0 || e.turn != queued || l.tryPush(e, fill(1)) {
		t.Errorf("pushed %d, turn %v, onto a line of %d bytes", n, e.turn, len(l.data))
	}
}

// A channel that asks while the writer has just emptied it must be asked again.
func TestTurnIsNotLostWhileTheWriterPulls(t *testing.T) {
	l := line{size: cutBody, pacer: pacer{limit: lineCap}}
	l.wake.L = &l.mu
	e := &entry{id: 1, turn: taken}
	if n := l.push(e, fill(10)); n != 0 || e.turn != again {
		t.Fatalf("pushed %d past the writer, turn %v", n, e.turn)
	}
	if !l.settle(e, false) || e.turn != taken {
		t.Errorf("the writer was not told, turn %v", e.turn)
	}
	if l.settle(e, false) || e.turn != idle {
		t.Errorf("asked for ever, turn %v", e.turn)
	}
	if n := l.push(e, fill(10)); n != 10 || e.turn != idle {
		t.Errorf("pushed %d, turn %v", n, e.turn)
	}
}
