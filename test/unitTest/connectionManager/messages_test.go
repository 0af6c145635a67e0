package connectionmanager_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
)

// Three unreliable messages are three at the far end, whatever the carrier has.
//
// case: E14
func TestUnreliableMessagesKeepTheirBorders(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		incoming := bob.accepting(t, "*")
		a := connect(t, alice, bob, "game://")
		b := await(t, incoming, never)
		out, in := peerlink.NewMessages(a), peerlink.NewMessages(b)
		words := []string{"one", "two and more", "3"}
		unreliably(t, out, in, b, words, words)
		if a.MaxDatagram() == 0 {
			return
		}
		if _, err := a.Write(append(binary.BigEndian.AppendUint32(nil, 5), "he"...)); err != nil {
			t.Fatal(err)
		}
		unreliably(t, out, in, b, []string{"in the middle"}, append(words, "in the middle")) // copies of before may come late
		if _, err := a.Write([]byte("llo")); err != nil {
			t.Fatal(err)
		}
		for {
			if p, err := in.Receive(); err != nil {
				t.Fatal(err)
			} else if string(p) == "hello" {
				return
			}
		}
	})
}

// unreliably sends words until each has arrived; nothing but known ones may come.
func unreliably(t *testing.T, out, in *peerlink.Messages, b *channel.Socket, words, known []string) {
	t.Helper()
	missing := slices.Clone(words)
	deadline := time.Now().Add(patience)
	for len(missing) > 0 && !t.Failed() {
		for _, word := range words {
			if err := out.SendUnreliable([]byte(word)); err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
		}
		for range words { // one may be lost
			_ = b.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			p, err := in.Receive()
			if err != nil && (time.Now().After(deadline) || !isTimeout(err)) {
				t.Fatalf("%q are missing: %v", missing, err)
			}
			if err == nil && !slices.Contains(known, string(p)) {
				t.Fatalf("%q came, and was never sent", p)
			}
			missing = slices.DeleteFunc(missing, func(w string) bool { return err == nil && w == string(p) })
		}
	}
	_ = b.SetReadDeadline(time.Now().Add(patience))
}

func isTimeout(err error) bool {
	timeout, is := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return is && timeout.Timeout()
}
