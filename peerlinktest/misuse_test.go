package peerlinktest_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/channel"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
)

// record is a test that remembers what it is told instead of failing.
type record struct {
	testing.TB
	mu       sync.Mutex
	said     []string
	failed   bool
	cleanups []func()
}

func (r *record) say(failed bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said, r.failed = append(r.said, text), r.failed || failed
}

func (r *record) Helper()                        {}
func (r *record) Cleanup(f func())               { r.cleanups = append(r.cleanups, f) }
func (r *record) Errorf(format string, a ...any) { r.say(true, fmt.Sprintf(format, a...)) }
func (r *record) Logf(format string, a ...any)   { r.say(false, fmt.Sprintf(format, a...)) }
func (r *record) Failed() bool                   { return r.failed }

func (r *record) Fatalf(format string, a ...any) {
	r.Errorf(format, a...)
	runtime.Goexit()
}

// of returns what a test of its own is told, with its end.
func of(t *testing.T, test func(t testing.TB)) string {
	r := &record{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	return strings.Join(r.said, "\n")
}

func TestMistakesFailTheTest(t *testing.T) {
	two := func(t testing.TB, c ...peerlinktest.Carrier) *peerlinktest.Network {
		n := peerlinktest.New(t, c...)
		n.Peer("alice")
		n.Peer("bob")
		return n
	}
	for want, test := range map[string]func(t testing.TB){
		`there is no peer "bbo"; there are ["alice" "bob"]`: func(t testing.TB) { two(t).Cut("alice", "bbo") },
		`there is a peer "bob" already`:                     func(t testing.TB) { two(t).Peer("bob") },
		`"bob" and which other peer?`:                       func(t testing.TB) { two(t).Cut("bob") },
		`no carrier "lan"`:                                  func(t testing.TB) { two(t).On("lan") },
		`no line can be`:                                    func(t testing.TB) { two(t).Shape(peerlinktest.Line{Loss: 1}) },
		`"bob" is in two groups`:                            func(t testing.TB) { two(t).Partition([]string{"alice", "bob"}, []string{"bob"}) },
		`give New its Shaped()`:                             func(t testing.TB) { two(t, loopback.TCP()).Reset("alice", "bob") },
		`a stream from alice to bob was left open`:          func(t testing.TB) { two(t).Pipe("alice", "bob") },
		"": func(t testing.TB) { two(t) },
		peerlinktest.SeedVariable + "=": func(t testing.TB) {
			two(t).Shape(peerlinktest.Line{Loss: 0.1})
			t.Errorf("something")
		},
	} {
		got := of(t, test)
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("the test is told %q, want %q", got, want)
		}
	}
}

// Channels that were never closed, and peers that are cut off, end with the test.
func TestTheEndOfATestLeavesNothing(t *testing.T) {
	began := time.Now()
	got := of(t, func(t testing.TB) {
		n := peerlinktest.New(t)
		alice, bob := n.Peer("alice"), n.Peer("bob")
		bob.Serve("*", func(c *channel.Socket) { _, _ = io.Copy(c, c) })
		alice.Connect(bob, "x://")
		n.Cut("alice", "bob")
	})
	if got != "" || time.Since(began) > 10*time.Second {
		t.Errorf("told %q after %v", got, time.Since(began))
	}
}
