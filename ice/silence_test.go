package ice

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"peerlink/internal/route"
)

// When a connection is looked at, asked, and given up.
// fault: F2
func TestASilentTCPConnectionIsAskedAndThenGivenUp(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		state       tcpState
		lost, probe bool
		in          time.Duration
	}{
		{tcpState{answered: 0}, false, false, 200 * ms},
		{tcpState{answered: 900 * ms}, false, false, 100 * ms},
		{tcpState{answered: 1000 * ms}, false, true, 150 * ms},
		{tcpState{answered: 2200 * ms}, false, true, 100 * ms},
		{tcpState{answered: 2300 * ms}, true, false, 150 * ms},
		{tcpState{answered: 2300 * ms, rtt: 20 * ms}, false, true, 20 * ms},
		{tcpState{answered: 2320 * ms, rtt: 20 * ms}, true, false, 150 * ms},
		// Over a satellite answers take longer.
		{tcpState{answered: 2300 * ms, rtt: 600 * ms}, false, true, 150 * ms},
		{tcpState{answered: 2800 * ms, rtt: 600 * ms}, true, false, 150 * ms},
	} {
		var h hearing
		if silence, lost, probe, in := h.look(time.Now(), c.state); silence != c.state.answered || lost != c.lost || probe != c.probe || in != c.in {
			t.Errorf("%+v: lost %v, probe %v after %v, again in %v", c.state, lost, probe, silence, in)
		}
	}
}

// A question of the other side's counts as heard, but not as an answer. It came
// after the look before it, so no sooner is it counted.
// fault: F2
func TestWhatIsNoAnswerIsHeardToo(t *testing.T) {
	const ms = time.Millisecond
	var h hearing
	start := time.Now()
	for _, c := range []struct {
		at         time.Duration
		segments   uint32
		silence    time.Duration
		lost, asks bool
	}{
		{1400 * ms, 7, 1400 * ms, false, true},
		{1550 * ms, 7, 1550 * ms, false, true},
		{1700 * ms, 8, 150 * ms, false, true}, // no answer, so it asks
		{2400 * ms, 8, 850 * ms, false, true},
		{2550 * ms, 9, 150 * ms, false, true},
		{4690 * ms, 9, 1000 * ms, false, true}, // 2 s late: it has not asked
		{5840 * ms, 9, 2150 * ms, false, true},
		{5990 * ms, 9, 2300 * ms, true, false},
	} {
		s := tcpState{answered: c.at, segments: c.segments}
		if silence, lost, asks, _ := h.look(start.Add(c.at), s); silence != c.silence || lost != c.lost || asks != c.asks {
			t.Errorf("at %v: silence %v, lost %v, asks %v", c.at, silence, lost, asks)
		}
	}
}

// tcpEnd is one end of an idle connection as Linux treats it, in milliseconds: it
// asks when it is told to or after a second without an answer, and answers at most
// twice a second.
type tcpEnd struct {
	hearing         hearing
	segments        uint32
	heard, replied  int // when an answer came, and when it gave one
	next, keepAlive int // look, and question of the system's
	inc             []tcpSegment
	silence         time.Duration // that has ended it
}

type tcpSegment struct {
	at     int
	answer bool
}

const (
	modelDelay   = 10  // one way
	linuxReplies = 500 // net.ipv4.tcp_invalid_ratelimit
)

// step lives one millisecond, and returns what is sent.
func (e *tcpEnd) step(now int) (sent []tcpSegment) {
	for len(e.inc) > 0 && e.inc[0].at <= now {
		e.segments++
		if e.inc[0].answer {
			e.heard = now
		} else if now-e.replied >= linuxReplies {
			e.replied = now
			sent = append(sent, tcpSegment{now + modelDelay, true})
		}
		e.inc = e.inc[1:]
	}
	ask := now >= e.keepAlive
	if now >= e.next && e.silence == 0 {
		state := tcpState{answered: time.Duration(now-e.heard) * time.Millisecond, segments: e.segments, rtt: 2 * modelDelay * time.Millisecond}
		silence, lost, probe, in := e.hearing.look(time.UnixMilli(int64(now)), state)
		if lost {
			e.silence = silence
		}
		ask = ask || probe
		e.next = now + int(in/time.Millisecond)
	}
	if ask {
		if now-e.heard >= 1000 {
			sent = append(sent, tcpSegment{now + modelDelay, false})
			e.keepAlive = now + 1000
		} else {
			e.keepAlive = e.heard + 1000
		}
	}
	return sent
}

// An idle connection bears the loss of every fifth packet for ten minutes, and of all
// for less than three seconds: the clock and the system are the test's own.
// fault: F2
// fault: F4
func TestAnIdleTCPConnectionBearsLossAndNotSilence(t *testing.T) {
	const end = 600_000
	for _, loss := range []float64{0, 0.05, 0.2} {
		dice := rand.New(rand.NewPCG(20, uint64(100*loss)))
		var ends [2]tcpEnd
		for i := range ends {
			ends[i] = tcpEnd{replied: -linuxReplies, keepAlive: 1000}
		}
		for now := range end + 3000 {
			for i := range ends {
				for _, s := range ends[i].step(now) {
					if now < end && dice.Float64() >= loss {
						ends[1-i].inc = append(ends[1-i].inc, s)
					}
				}
			}
			if now == end && (ends[0].silence != 0 || ends[1].silence != 0) {
				t.Fatalf("at a loss of %.2f a connection was given up", loss)
			}
		}
		for _, e := range ends {
			if e.silence == 0 {
				t.Errorf("at a loss of %.2f: nothing comes for 3 s, and nobody has noticed", loss)
			}
		}
	}
}

// A peer that does all the talking is heard: it acknowledges nothing, as nothing
// is sent to it.
func TestAConnectionThatOnlyReceivesIsNotSilent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(silenceLimit + 500*time.Millisecond); time.Now().Before(end); <-tick.C {
			if _, err := conn.Write([]byte{1}); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newTCPConn(conn.(*net.TCPConn), route.Path{})
	defer c.Close()
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
}

// What has ended a connection is told by its Read, and again by the next.
func TestReadTellsOfTheSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newTCPConn(conn.(*net.TCPConn), route.Path{})
	defer c.Close()
	c.lost.Store(int64(silenceLimit))
	_ = c.SetReadDeadline(time.Unix(1, 0))
	for range 2 {
		_, err := c.Read(make([]byte, 1))
		var silence silenceError
		if !errors.As(err, &silence) || time.Duration(silence) != silenceLimit {
			t.Errorf("Read: %v", err)
		}
	}
}
