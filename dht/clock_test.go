package dht

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestClockIsJudgedByTheMiddleNode(t *testing.T) {
	for _, c := range []struct {
		ahead []time.Duration
		want  time.Duration
	}{
		{nil, 0},
		{[]time.Duration{time.Hour}, time.Hour},
		{[]time.Duration{time.Hour, 0}, 0}, // one of two may lie
		{[]time.Duration{-time.Hour, time.Second, time.Hour}, time.Second},
		{[]time.Duration{-time.Hour, -time.Hour, time.Second, -2 * time.Hour}, -time.Hour},
	} {
		var k clock
		for i, d := range c.ahead {
			k.note(peer.ID(rune('a'+i)), d)
		}
		if got := k.off(); got != c.want {
			t.Errorf("%v: %v, want %v", c.ahead, got, c.want)
		}
	}
	var k clock
	if !k.note("a", time.Hour) || k.note("b", time.Hour) || !strings.Contains(k.hint(), "1h0m0s ahead") {
		t.Errorf("it is said once; %q", k.hint())
	}
	k.forget("a")
	k.forget("b")
	if k.hint() != "" {
		t.Errorf("%q", k.hint())
	}
	k.note("a", -time.Hour)
	if !strings.Contains(k.hint(), "1h0m0s behind") {
		t.Errorf("%q", k.hint())
	}
}

// A device whose clock is wrong is refused by all nodes; its own error names the
// clock, not the network.
//
// fault: D4, E6
func TestWrongClockIsNamedInTheError(t *testing.T) {
	nodes := startNodes(t, 3)
	off := -time.Hour
	alice := start(t, Config{
		Identity: newIdentity(t, "alice"), Bootstrap: nodes[0].Addrs(), recordLife: 30 * time.Minute, // over before it is put
		now: func() time.Time { return time.Now().Add(off) },
	})
	eventually(t, "the clock is known", func() bool { return alice.Health().ClockAhead != 0 && alice.Health().Subscriptions == 3 })
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if err := alice.Ready(ctx); err == nil || !strings.Contains(err.Error(), "clock is 1h0m0s behind") {
		t.Errorf("ready: %v", err)
	}
	if h := alice.Health(); h.Holders != 0 || h.ClockAhead > off+time.Minute || h.ClockAhead < off-time.Minute {
		t.Errorf("%+v", h)
	}
	bob := device(t, "bob", nodes[0])
	if h := bob.Health(); h.ClockAhead.Abs() > time.Second || bob.presence.clock.hint() != "" {
		t.Errorf("bob's clock: %v", h.ClockAhead)
	}
}
