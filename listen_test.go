package peerlink

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"peerlink/channel"
)

// An exact pattern wins, then the longest; what no pattern fits has no listener.
func TestRouterFindsTheMostSpecificPattern(t *testing.T) {
	var r router
	for _, p := range []string{"file://*", "*", "file://a/*", "file://a/b"} {
		if _, err := r.listen(p, nil); err != nil {
			t.Fatal(err)
		}
	}
	for uri, want := range map[string]string{
		"file://a/b": "file://a/b", "file://a/bc": "file://a/*", "file://a": "file://*", "chat://bob": "*", "file://*": "file://*",
	} {
		if l := r.claimant(uri); l == nil || l.pattern != want {
			t.Errorf("%s goes to %+v, want %s", uri, l, want)
		}
	}
	_ = r.claimant("chat://bob").Close()
	if l := r.claimant("chat://bob"); l != nil {
		t.Errorf("chat://bob goes to %s, whose listener is closed", l.pattern)
	}
}

func TestRouterClaimsAPatternOnceAndNoneAfterClose(t *testing.T) {
	var r router
	for _, p := range []string{"", "a*b", "**"} {
		if _, err := r.listen(p, nil); err == nil {
			t.Errorf("%q is a pattern", p)
		}
	}
	first, err := r.listen("chat://*", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.listen("chat://*", nil); !errors.Is(err, ErrClaimed) {
		t.Error("one pattern is claimed twice:", err)
	}
	_ = first.Close()
	second, err := r.listen("chat://*", nil)
	if err != nil {
		t.Fatal("a pattern that was given up cannot be claimed:", err)
	}
	_ = first.Close() // again: it must not give up the second one's
	if r.claimant("chat://bob") != second {
		t.Error("the second listener has lost its pattern")
	}
	r.close()
	if _, err := second.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("accept on a closed listener:", err)
	}
	if err := second.offer(context.Background(), asker{}, nil); !errors.Is(err, errGone) {
		t.Error("a closed listener takes a channel:", err)
	}
	if _, err := r.listen("chat://*", nil); !errors.Is(err, net.ErrClosed) {
		t.Error("a pattern is claimed after the end:", err)
	}
}

// A listener that is closed while a channel is accepted for it closes that one,
// as it closes the channels that wait.
func TestListenerThatClosesLeavesNoChannelOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r router
		l, err := r.listen("*", nil)
		if err != nil {
			t.Fatal(err)
		}
		x := newMeeting(t, 1, 2)
		var got []*channel.Socket
		accept := func() (*channel.Socket, error) {
			c, err := x.ask(t.Context())
			if got = append(got, c); len(got) == 2 {
				_ = l.Close()
			}
			return c, err
		}
		for range 2 {
			if err := l.offer(t.Context(), asker{}, accept); err != nil {
				t.Error(err)
			}
		}
		if err := l.offer(t.Context(), asker{}, accept); !errors.Is(err, errGone) || len(got) != 2 {
			t.Errorf("after Close: %v, %d channels are accepted", err, len(got))
		}
		for i, c := range got {
			if _, err := c.Write([]byte("hello")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("channel %d: %v", i, err)
			}
		}
	})
}
