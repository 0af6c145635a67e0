package ice

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
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
		{tcpState{silence: 0}, false, false, time.Second},
		{tcpState{silence: 900 * ms}, false, false, 100 * ms},
		{tcpState{silence: 1000 * ms}, false, true, 150 * ms},
		{tcpState{silence: 2200 * ms}, false, true, 100 * ms},
		{tcpState{silence: 2300 * ms}, true, false, 150 * ms},
		{tcpState{silence: 2300 * ms, rtt: 20 * ms}, false, true, 20 * ms},
		{tcpState{silence: 2320 * ms, rtt: 20 * ms}, true, false, 150 * ms},
		// Over a satellite answers take longer.
		{tcpState{silence: 2300 * ms, rtt: 600 * ms}, false, true, 150 * ms},
		{tcpState{silence: 2800 * ms, rtt: 600 * ms}, true, false, 150 * ms},
	} {
		if lost, probe, in := c.state.next(); lost != c.lost || probe != c.probe || in != c.in {
			t.Errorf("%+v: lost %v, probe %v, again in %v", c.state, lost, probe, in)
		}
	}
}

// A peer that does all the talking is heard: it acknowledges nothing, as nothing
// is sent to it.
func TestAConnectionThatOnlyReceivesIsNotSilent(t *testing.T) {
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
	c := newTCPConn(conn.(*net.TCPConn), "")
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
	c := newTCPConn(conn.(*net.TCPConn), "")
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
