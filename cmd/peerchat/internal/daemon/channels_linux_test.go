package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// Who may have a channel is decided before it is accepted: by a contact, for all its
// devices, or by the rules for a pipe, as they are then.
//
// case: E15
func TestADeviceThatMayNotIsDeclined(t *testing.T) {
	alice, laptop, phone, local := family(t)
	carol := open(t, t.TempDir()+"/carol", local)
	alice.link(t, laptop) // whose account it is, and so whose the phone is
	for name, what := range map[string]control.Listen{
		"from": {Pattern: "pipe://from", From: []identity.DeviceID{laptop.id()}},
		"rule": {Pattern: "pipe://rule", Pipe: "rule"},
	} {
		refused := make(chan identity.Peer, 1)
		l, err := alice.client.ListenTo(t.Context(), what, func(p identity.Peer) { refused <- p })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		call := func(from *house) error {
			c, err := from.client.Connect(t.Context(), control.Connect{Device: alice.id(), URI: what.Pattern})
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		}
		accepted := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if p, _ := peerlink.PeerOf(c); p.Device != phone.id() {
					err = errors.New("a channel of another device was taken")
				}
				accepted <- errors.Join(err, c.Close())
			}
		}()
		err = call(carol)
		if !errors.Is(err, peerlink.ErrDeclined) || errors.Is(err, peerlink.ErrNoListener) || !strings.Contains(err.Error(), "you may not join") {
			t.Errorf("%s: carol: %v", name, err)
		}
		select {
		case p := <-refused:
			if p.Device != carol.id() {
				t.Errorf("%s: told of %v", name, p)
			}
		case err := <-accepted:
			t.Errorf("%s: carol's channel was accepted: %v", name, err)
		case <-time.After(within):
			t.Fatalf("%s: not told of carol", name)
		}
		if what.Pipe != "" {
			if err := call(phone); !errors.Is(err, peerlink.ErrDeclined) {
				t.Errorf("%s: without a rule: %v", name, err)
			}
			receive(t, refused)
			rule := control.ForwardChange{Do: "allow", Who: "bob", May: forward.DoPipe, Addr: what.Pipe}
			if _, err := control.OpForwards.Ask(t.Context(), alice.client, rule); err != nil {
				t.Fatal(err)
			}
		}
		if err := call(phone); err != nil {
			t.Fatalf("%s: bob's phone: %v", name, err)
		}
		if err := receive(t, accepted); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
