package peerlinktest_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"peerlink/channel"
	"peerlink/peerlinktest"
)

// greeting is a test of two peers. A program's own test file has it as
//
//	func TestGreeting(t *testing.T) { synctest.Test(t, greeting) }
func greeting(t *testing.T) {
	n := peerlinktest.New(t)
	alice, bob := n.Peer("alice"), n.Peer("bob")
	n.Shape(peerlinktest.Line{Delay: 20 * time.Millisecond}, "alice", "bob")
	bob.Serve("greet://*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })

	c := alice.Connect(bob, "greet://bob")
	n.Cut("alice", "bob") // nothing arrives, and neither side is told
	time.AfterFunc(time.Second, func() { n.Heal() })
	began := time.Now()
	if _, err := fmt.Fprint(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len("hello"))); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d != time.Second+40*time.Millisecond {
		t.Errorf("the echo took %v", d)
	}
}
