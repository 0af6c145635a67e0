package control

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/channel"
	"peerlink/identity"
)

// insidePair returns both ends of a connection within this process.
func insidePair() (a, b net.Conn, stop func(), err error) {
	l, c := Inside()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := l.Accept()
		accepted <- conn
	}()
	if a, err = c.dial(context.Background()); err != nil {
		return nil, nil, nil, err
	}
	b = <-accepted
	return a, b, func() { _, _, _ = a.Close(), b.Close(), l.Close() }, nil
}

func TestAConnectionWithinTheProcess(t *testing.T) { nettest.TestConn(t, insidePair) }

// The end and the cause of a channel wait for a command that is busy for longer
// than the last words take, as they do in a socket.
func TestLastWordsWaitForABusyCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, stop, err := insidePair()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		command := newConn(newWire(a), "test://x", identity.Peer{}, identity.Peer{})
		daemon := newConn(newWire(b), "test://x", identity.Peer{}, identity.Peer{})
		if _, err := daemon.Write([]byte("half of")); err != nil {
			t.Fatal(err)
		}
		daemon.Fail(&channel.ResetError{Code: channel.CodeUser + 3, Remote: true})
		time.Sleep(time.Minute) // of the bubble: the person is asked something
		got, err := io.ReadAll(command)
		var reset *channel.ResetError
		if string(got) != "half of" || !errors.As(err, &reset) || reset.Code != channel.CodeUser+3 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A Write that waits for room fails once the other end reads no more.
func TestAWriteThatWaitsFailsWithTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, stop, err := insidePair()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		wrote := make(chan int)
		go func() {
			n, err := a.Write(make([]byte, insideRoom+1))
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("%v", err)
			}
			wrote <- n
		}()
		synctest.Wait()
		_ = b.(*insideConn).CloseRead()
		if n := <-wrote; n != insideRoom {
			t.Errorf("%d bytes were taken, want %d", n, insideRoom)
		}
	})
}
