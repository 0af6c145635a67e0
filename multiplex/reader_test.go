package multiplex

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// endsBy sends frames and wants the link to end because of them.
func (h *hostile) endsBy(want error, fs ...frame) {
	h.t.Helper()
	h.send(fs...)
	time.Sleep(lastWords) // in the bubble: no time at all
	synctest.Wait()
	if err := h.s.Err(); !errors.Is(err, want) {
		h.t.Errorf("the link ended by %v, want %v", err, want)
	}
}

// toldWhy wants that the peer has been told that it broke the protocol.
func (h *hostile) toldWhy() {
	h.t.Helper()
	if ms := h.messages('g'); len(ms) != 1 || ms[0].code != channel.CodeProtocol || ms[0].reason == "" {
		h.t.Errorf("the peer was told %+v", ms)
	}
}

// fault: A1, A2, A6, A7, A8, B3, B8
func TestPeerThatBreaksTheProtocolIsToldAndLeft(t *testing.T) {
	reset := func(id channel.ID) frame { return frame{protocolID, encodeReset(id, 0)} }
	for name, fs := range map[string][]frame{
		"control is not msgpack":        {{controlID, []byte{0xc1}}},
		"protocol is not msgpack":       {{protocolID, []byte{0xc1}}},
		"name announces 4 GiB":          {{controlID, []byte{0x93, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}}},
		"array announces 4 Gi elements": {{controlID, []byte{0xdd, 0xff, 0xff, 0xff, 0xff, 'x'}}},
		"map announces 4 Gi pairs":      {{protocolID, []byte{0xdf, 0xff, 0xff, 0xff, 0xff, 'x'}}},
		"request of two elements":       {{controlID, []byte{0x92, 0xa1, 'x', 1}}},
		"request crosses frames":        {{controlID, []byte{0x96, 0xa1, 'x', 1, 0xc2}}, {controlID, []byte{0xc2, 0, 0xa0}}},
		"name of another type":          {{controlID, []byte{0x93, 1, 1, 0xc2}}},
		"name is not UTF-8":             {{controlID, []byte{0x93, 0xa1, 0xff, 1, 0xc2}}},
		"id past 16 bits":               {{controlID, []byte{0x93, 0xa1, 'x', 0xce, 0, 1, 0, 1, 0xc2}}},
		"negative window":               {{controlID, []byte{0x95, 0xa1, 'x', 1, 0xc2, 0xc2, 0xff}}},
		"window past 31 bits":           {{controlID, []byte{0x95, 0xa1, 'x', 1, 0xc2, 0xc2, 0xce, 0xff, 0xff, 0xff, 0xff}}},
		"nested too deep":               {{protocolID, append(append([]byte{0x81, 0xa1, 'z'}, bytes.Repeat([]byte{0x91}, 64)...), 1)}},
		"extension":                     {{protocolID, []byte{0x81, 0xa1, 'z', 0xd4, 1, 1}}},
		"request on a reserved id":      {(&hostile{}).open(controlID, "x")},
		"request on the other reserved": {(&hostile{}).open(protocolID, "x")},
		"request on our half":           {(&hostile{}).open(0x8000, "x")},
		"request on an id in use":       {(&hostile{}).open(1, "x"), (&hostile{}).open(1, "x")},
		"data after the end":            {(&hostile{}).open(1, "x"), {1, nil}, {1, []byte("x")}},
		"two ends":                      {(&hostile{}).open(1, "x"), {1, nil}, {1, nil}},
		"credit of zero":                {(&hostile{}).open(1, "x"), {protocolID, encodeGrant(1, 0)}},
		"credit overflows":              {(&hostile{}).open(1, "x"), {protocolID, encodeGrant(1, 1<<31-1)}},
		"credit of a channel alone":     {{protocolID, encodeNumbers("w", 1)}},
		"credit for too many":           {{protocolID, encodeNumbers("w", make([]uint64, 2*maxGrants+2)...)}},
		"reset without a code":          {{protocolID, encodeNumbers("x", 1)}},
		"beacon of another type":        {{protocolID, []byte{0x81, 0xa1, 'p', 0xa1, 'x'}}},
		"frames of unknown channels":    repeat(frame{7, []byte("x")}, lateFrames+1),
		"ends of unknown channels":      repeat(frame{7, nil}, lateFrames+1),
		"credit of unknown channels":    repeat(frame{protocolID, encodeGrant(7, 1)}, lateFrames+1),
		"resets of unknown channels":    repeat(reset(7), lateFrames+1),
		"resets of reserved channels":   repeat(reset(protocolID), lateFrames+1),
		"answers nobody asked for":      repeat((&hostile{}).accept(0x8000, 1<<16), lateFrames+1),
		"beacon answers nobody wants":   repeat(frame{protocolID, encodeBeacon(7, true)}, lateFrames+1),
	} {
		t.Run(name, func(t *testing.T) {
			facing(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
				h.endsBy(ErrProtocol, fs...)
				h.toldWhy()
			})
		})
	}
}

func repeat(f frame, n int) []frame {
	fs := make([]frame, n)
	for i := range fs {
		fs[i] = f
	}
	return fs
}

// fault: A2, A8, B3, B6, B8
func TestWhatAPeerMayDoLeavesTheLinkAlive(t *testing.T) {
	h0 := &hostile{}
	for name, fs := range map[string][]frame{
		"empty control frame":          {{controlID, nil}},
		"empty protocol frame":         {{protocolID, nil}},
		"empty map":                    {{protocolID, []byte{0x80}}},
		"message of a version to come": {{protocolID, []byte{0x82, 0xa1, 'z', 0x93, 1, 2, 3, 0xa1, 'y', 0xc0}}},
		"known key that is not first":  {{protocolID, []byte{0x82, 0xa1, 'z', 1, 0xa1, 'x', 0xa1, 'y'}}},
		"request with more elements":   {{controlID, []byte{0x98, 0xa1, 'x', 1, 0xc2, 0xc2, 1, 0xa0, 0x91, 1, 0xc0}}},
		"request with three elements":  {{controlID, []byte{0x93, 0xa1, 'x', 1, 0xc2}}},
		"two requests in one frame":    {{controlID, append(h0.open(1, "x").body, h0.open(2, "x").body...)}},
		"second hello":                 {{protocolID, encodeHello(1, 9)}, {protocolID, encodeHello(77, 9)}},
		"beacon twice":                 {{protocolID, encodeBeacon(1, false)}, {protocolID, encodeBeacon(1, false)}},
		"late frames":                  repeat(frame{7, []byte("x")}, lateFrames),
		"name too long":                {h0.open(1, strings.Repeat("x", 65_000))},
		"empty name":                   {h0.open(1, "")},
		"name that moves the cursor":   {h0.open(1, "x\x1b[2J")},
		"name that turns text around":  {h0.open(1, "x\u202ey")},
	} {
		t.Run(name, func(t *testing.T) {
			facing(t, Config{}, func(t *testing.T, h *hostile) {
				h.send(fs...)
				h.alive()
				h.accepted(100)
			})
		})
	}
}

// fault: B6
func TestBadNamesAreDeclined(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		for i, name := range []string{"", strings.Repeat("n", 256), "a\x00b", "\u202e"} {
			h.send(h.open(channel.ID(i+1), name))
		}
		qs := h.requests()
		if len(qs) != 4 {
			t.Fatalf("%d answers", len(qs))
		}
		for _, q := range qs {
			if !q.answer || q.accepted || !strings.Contains(q.reason, "bad channel name") {
				t.Errorf("answer %+v", q)
			}
		}
	})
}

// fault: B8
func TestFirstHelloCounts(t *testing.T) {
	for name, c := range map[string]struct {
		first []frame
		want  int
	}{
		"version 2":            {[]frame{{protocolID, encodeHello(2, 0)}, {protocolID, encodeHello(1, 0)}}, 2},
		"from the future":      {[]frame{{protocolID, encodeHello(40_000, 1<<63)}}, 2},
		"version 1":            {[]frame{{protocolID, encodeHello(1, 0)}, {protocolID, encodeHello(2, 0)}}, 1},
		"none, a request":      {[]frame{(&hostile{}).open(1, "x"), {protocolID, encodeHello(2, 0)}}, 1},
		"none, another":        {[]frame{{protocolID, encodeBeacon(1, false)}, {protocolID, encodeHello(2, 0)}}, 1},
		"none, an empty frame": {[]frame{{protocolID, nil}, {protocolID, encodeHello(2, 0)}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostile(t, Config{}, Server)
				go h.listen()
				h.send(c.first...)
				if err := h.s.Ready(t.Context()); err != nil || h.s.Version() != c.want {
					t.Errorf("version %d (%v), want %d", h.s.Version(), err, c.want)
				}
			})
		})
	}
}

func TestVersionThatWasSwitchedOffIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{MinVersion: 2}, Server)
		go h.listen()
		h.send(h.open(1, "x"))
		<-h.s.Done()
		if err := h.s.Ready(t.Context()); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("ready: %v", err)
		}
		h.toldWhy()
	})
}

// honestStream is what an honest peer sends: hello, requests, data and ends.
func honestStream() (b []byte, want []byte) {
	add := func(f frame) { b = append(appendHeader(b, f.id, len(f.body)), f.body...) }
	add(frame{protocolID, encodeHello(2, 0)})
	add((&hostile{}).open(1, "x"))
	for i := range 5 {
		p := bytes.Repeat([]byte{byte(i)}, i*7+1)
		want = append(want, p...)
		add(frame{1, p})
	}
	add(frame{protocolID, encodeBeacon(9, false)})
	add(frame{1, nil})
	return b, want
}

// fault: A3
func TestTransportCutAtAnyByteIsNotACleanEnd(t *testing.T) {
	b, want := honestStream()
	for cut := range b {
		synctest.Test(t, func(t *testing.T) {
			h := newHostile(t, Config{}, Server)
			go h.listen()
			h.write(b[:cut])
			h.conn.Close()
			<-h.s.Done()
			if err := h.s.Err(); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.EOF) {
				t.Errorf("cut at %d: ended by %v", cut, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // what arrived before the cut is there, then an error
		h := newHostile(t, Config{}, Server)
		go h.listen()
		h.write(b[:len(b)-headerLen])
		r, err := h.s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sock, err := r.Accept()
		if err != nil {
			t.Fatal(err)
		}
		h.conn.Close()
		if got, err := io.ReadAll(sock); !bytes.Equal(got, want) || err == nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// fault: A3
func TestStallInsideAFrameEndsTheLink(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		h.answerBeacons()
		sock := h.accepted(1)
		h.write([]byte{0, 100, 0, 1, 'x'})
		if _, err := io.ReadFull(sock, make([]byte, 2)); !errors.Is(err, ErrDead) {
			t.Errorf("read: %v", err)
		}
	})
}

// fault: A4
func TestFramesMayBeSplitAndMergedAtWill(t *testing.T) {
	b, want := honestStream()
	for _, size := range []int{1, 2, 3, 5, 64, len(b)} {
		synctest.Test(t, func(t *testing.T) { checkSplit(t, b, want, func() int { return size }) })
	}
}

// checkSplit sends a stream in pieces of the given sizes.
func checkSplit(t *testing.T, b, want []byte, size func() int) {
	h := newHostile(t, Config{}, Server)
	go h.listen()
	for len(b) > 0 {
		k := min(max(size(), 1), len(b))
		h.write(b[:k])
		b = b[k:]
	}
	r, err := h.s.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sock, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(sock); !bytes.Equal(got, want) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// fault: C2
func TestChannelPastItsCreditIsResetAlone(t *testing.T) {
	facing(t, Config{Window: 64 << 10}, func(t *testing.T, h *hostile) {
		good, bad := h.accepted(1), h.accepted(2)
		h.send(frame{2, fill(65535)}, frame{2, fill(2)}, frame{2, fill(65535)}, frame{1, []byte("fine")})
		if codes := h.resets(2); len(codes) != 1 || codes[0] != channel.CodeFlowControl {
			t.Errorf("resets %v", codes)
		}
		if n := h.s.Stats().Unread; n != 65535+4 {
			t.Errorf("%d bytes are buffered", n)
		}
		got, err := io.ReadAll(bad)
		if re, ok := errors.AsType[*channel.ResetError](err); len(got) != 65535 || !ok || re.Remote || re.Code != channel.CodeFlowControl {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		buf := make([]byte, 9)
		if n, err := good.Read(buf); string(buf[:n]) != "fine" || err != nil {
			t.Errorf("the other channel: %q, %v", buf[:n], err)
		}
		h.send(frame{2, nil})
		h.alive()
	})
}

// Whoever has held most for longest gives way, not the channel that happens to
// receive.
//
// fault: C1
func TestMemoryOfUnreadBytesIsBoundedOverAllChannels(t *testing.T) {
	facing(t, Config{Window: 64 << 10, MaxBuffered: 256 << 10, BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		for i := range channel.ID(20) {
			h.accepted(1 + i)
			time.Sleep(time.Second)
			h.send(frame{1 + i, fill(60_000)})
		}
		if n := h.s.Stats().Unread; n > 256<<10 || n < 192<<10 {
			t.Errorf("%d bytes are buffered", n)
		}
		for i := range channel.ID(20) {
			codes := h.resets(1 + i)
			if i < 16 && (len(codes) != 1 || codes[0] != channel.CodeResource) || i >= 16 && len(codes) != 0 {
				t.Errorf("channel %d: resets %v", 1+i, codes)
			}
		}
		h.alive()
	})
}

// fault: B7, B10
func TestBeaconFloodIsAnsweredWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server) // and nobody reads the answers
		h.send(frame{protocolID, encodeHello(2, 0)})
		n := 0
		for h.send(frame{protocolID, encodeBeacon(uint64(n), false)}) {
			n++
		}
		<-h.s.Done()
		if !errors.Is(h.s.Err(), ErrProtocol) || n > maxReplies/10 {
			t.Errorf("ended by %v after %d beacons", h.s.Err(), n)
		}
	})
}

// fault: B10
func TestResetFloodIsAnsweredWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		h.send(frame{protocolID, encodeHello(2, 0)})
		n := 0
		for h.send(h.open(1, "x"), frame{protocolID, encodeReset(1, 2)}) && n < 100_000 {
			n++
		}
		<-h.s.Done()
		if !errors.Is(h.s.Err(), ErrProtocol) {
			t.Errorf("ended by %v after %d pairs", h.s.Err(), n)
		}
	})
}

// fault: B9
func TestPeerThatReadsNothingIsDeadNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		h.send(frame{protocolID, encodeHello(2, 0)})
		start := time.Now()
		sock := h.accepted(1)
		if _, err := sock.Write(fill(10 << 20)); !errors.Is(err, ErrDead) {
			t.Errorf("write: %v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("found out after %v", d)
		}
	})
}

// fault: A5
func TestFlippedBitsNeverPanic(t *testing.T) {
	b, _ := honestStream()
	for i := range len(b) * 8 {
		synctest.Test(t, func(t *testing.T) {
			h := newHostile(t, Config{BeaconInterval: -1}, Server)
			go h.listen()
			c := bytes.Clone(b)
			c[i/8] ^= 1 << (i % 8)
			h.write(c)
			h.conn.Close()
			<-h.s.Done()
		})
	}
}

func TestPeersReasonIsQuotedAndBounded(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		sock := h.accepted(1)
		h.send(frame{1, []byte("last")}, frame{protocolID, encodeGoingAway(300, "bye\x1b[2J")})
		got, err := io.ReadAll(sock)
		away, ok := errors.AsType[*GoingAwayError](err)
		if string(got) != "last" || !ok || away.Code != 300 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q, %v", got, err)
		}
		if h.s.Err() != error(away) {
			t.Errorf("the link ended by %v", h.s.Err())
		}
	})
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		long := []byte{0x81, 0xa1, 'g', 0x92, 0, 0xda, 1, 0}
		h.endsBy(ErrProtocol, frame{protocolID, append(long, make([]byte, 256)...)})
	})
}

// broken is a conn that fails after some time, and a peer's last words.
type broken struct {
	net.Conn
	err error
}

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestWhatThePeerSaidBeforeAWriteFailedIsItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		s := Client(broken{b, os.ErrPermission}, Config{})
		synctest.Wait()
		fmt.Fprintf(a, "%s", frameOf(protocolID, encodeGoingAway(0, "done")))
		<-s.Done()
		if away, ok := errors.AsType[*GoingAwayError](s.Err()); !ok || away.Reason != "done" {
			t.Errorf("ended by %v", s.Err())
		}
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		_, b := net.Pipe()
		s := Client(broken{b, os.ErrPermission}, Config{})
		<-s.Done()
		if !errors.Is(s.Err(), os.ErrPermission) {
			t.Errorf("ended by %v", s.Err())
		}
		s.Close()
	})
}

func frameOf(id channel.ID, body []byte) []byte {
	return append(appendHeader(nil, id, len(body)), body...)
}
