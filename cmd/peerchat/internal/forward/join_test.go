package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"peerlink/channel"
	"peerlink/multiplex"
)

// channelPair returns two ends of a channel.
func channelPair(t *testing.T) (here, there *channel.Socket) {
	t.Helper()
	a, b := tcpPair(t)
	client, server := multiplex.Client(a, multiplex.Config{}), multiplex.Server(b, multiplex.Config{})
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	accepted := make(chan error, 1)
	go func() {
		r, err := server.Accept(ctx)
		if err == nil {
			there, err = r.Accept()
		}
		accepted <- err
	}()
	here, err := client.Open(ctx, URIDial)
	if err := errors.Join(err, <-accepted); err != nil {
		t.Fatal(err)
	}
	_ = here.SetDeadline(time.Now().Add(within))
	return here, there
}

// joined joins a TCP connection with a channel and returns their far ends.
func joined(t *testing.T) (program *net.TCPConn, peer *channel.Socket) {
	t.Helper()
	program, near := tcpPair(t)
	peer, far := channelPair(t)
	_ = program.SetDeadline(time.Now().Add(within))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = join(t.Context(), near, far)
	}()
	t.Cleanup(func() { _ = program.Close(); _ = peer.Close(); <-done })
	return program, peer
}

// wasCut tells whether a connection was reset, and did not end.
func wasCut(err error) bool {
	var reset *channel.ResetError
	return errors.Is(err, syscall.ECONNRESET) || errors.As(err, &reset)
}

func TestAResetComesBehindWhatWasWritten(t *testing.T) {
	// More than a reader that has not begun to read takes into its buffer.
	answer := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	for _, halfClosed := range []bool{false, true} {
		program, peer := joined(t)
		if halfClosed {
			_ = program.CloseWrite()
			if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the end of a half reads as %v", err)
			}
		}
		if _, err := peer.Write(answer); err != nil {
			t.Fatal(err)
		}
		_ = peer.Reset(channel.CodeUser)
		got, err := io.ReadAll(program)
		if !bytes.Equal(got, answer) || !wasCut(err) {
			t.Errorf("half-closed %v: %d bytes of %d, %v", halfClosed, len(got), len(answer), err)
		}
	}
}

// The system tells of a reset once, and tells the Write under way. What is read
// afterwards looks like an end.
func TestAResetThatAWriteWasToldOfIsNoEnd(t *testing.T) {
	for range 50 {
		program, peer := joined(t)
		up := make(chan error, 1)
		go func() {
			for {
				if _, err := peer.Write(make([]byte, 16<<10)); err != nil {
					up <- err
					return
				}
			}
		}()
		if _, err := io.ReadFull(program, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(program, "the first half of an ans")
		cut(program)
		got, err := io.ReadAll(peer)
		if string(got) != "the first half of an ans" || !wasCut(err) {
			t.Fatalf("%q, %v", got, err)
		}
		if err := <-up; !wasCut(err) {
			t.Fatal(err)
		}
	}
}

// An end that has been told all, and takes no more, is followed by a reset of what
// is still sent to it.
func TestAnEndThatTakesNoMoreIsNotWaitedFor(t *testing.T) {
	program, peer := joined(t)
	if _, err := peer.Write([]byte("that will do")); err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	got, err := io.ReadAll(program)
	if string(got) != "that will do" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for err == nil {
		_, err = program.Write(make([]byte, 16<<10))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

func TestAProgramThatIsKilledCutsTheChannel(t *testing.T) {
	program, peer := joined(t)
	if _, err := io.WriteString(program, "half"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	cut(program)
	if _, err := peer.Read(got); !wasCut(err) {
		t.Errorf("it reads as %v", err)
	}
}

func TestBothHalvesEndByThemselves(t *testing.T) {
	program, peer := joined(t)
	_ = peer.CloseWrite()
	if b, err := io.ReadAll(program); err != nil || len(b) > 0 {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := io.WriteString(program, "still sent"); err != nil {
		t.Fatal(err)
	}
	_ = program.CloseWrite()
	if b, err := io.ReadAll(peer); err != nil || string(b) != "still sent" {
		t.Errorf("%q, %v", b, err)
	}
}
