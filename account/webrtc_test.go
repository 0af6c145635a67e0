package account_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/account"
	"peerlink/webrtc/switchboard"
)

// board runs a switchboard on loopback and returns its URL.
func board(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- switchboard.NewServer(switchboard.ServerConfig{}).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "ws://" + l.Addr().String() + "/"
}

// Two accounts that have nothing in common but a switchboard reach each other,
// and bytes go both ways.
func TestAccountsMeetOverASwitchboardAlone(t *testing.T) {
	url := board(t)
	opts := account.Options{Switchboards: []string{url}, LocalDir: "off", Loopback: true}
	a, b := neighbour(t, "alice", opts), neighbour(t, "bob", opts)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, acc := range []*account.Account{a, b} {
		if err := acc.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if carrier, err := carrierTo(t, a, b); err != nil || carrier != "webrtc" {
		t.Errorf("carrier %q, %v", carrier, err)
	}
}

// With "off" there is no such carrier, whatever the switchboards; with "on" there
// must be something to signal over; and nothing else is a setting.
func TestWebRTCSetting(t *testing.T) {
	for _, c := range []struct {
		opts account.Options
		want string
	}{
		{account.Options{WebRTC: "off", Switchboards: []string{"wss://board.invalid/"}}, ""},
		{account.Options{Switchboards: []string{"wss://board.invalid/"}}, ""}, // it need not be there
		{account.Options{WebRTC: "on"}, "nothing to signal over"},
		{account.Options{WebRTC: "maybe"}, `want "on" or "off"`},
		{account.Options{Switchboards: []string{"http://board.invalid/"}}, "no address of a switchboard"},
	} {
		c.opts.LocalDir = "off"
		acc, err := account.Create(t.TempDir(), c.opts)
		if err != nil {
			t.Fatal(err)
		}
		err = acc.Start(context.Background())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: %v", c.opts.WebRTC, c.opts.Switchboards, err)
		}
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A switchboard that is away is named, and the account starts without it.
func TestReadyNamesTheSwitchboardThatIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "ws://" + l.Addr().String() + "/"
	l.Close()
	acc := neighbour(t, "alice", account.Options{Switchboards: []string{url}, LocalDir: "off", Loopback: true})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := acc.Ready(ctx); err == nil || !strings.Contains(err.Error(), url) {
		t.Errorf("ready: %v", err)
	}
}
