package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/chat"
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

// stranger is a device with a link to a house, and nothing else.
func stranger(t *testing.T, to *house) *peerlink.ConnectionManager {
	t.Helper()
	id, err := identity.Generate("stranger")
	if err != nil {
		t.Fatal(err)
	}
	m, err := peerlink.New(peerlink.Config{Identity: id, Network: peerlink.IgnoreNetwork})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	x, y := net.Pipe()
	linked := make(chan error, 1)
	go func() {
		_, err := to.acc.ConnectionManager().AddConn(context.Background(), y, id.Peer(), peerlink.Inbound)
		linked <- err
	}()
	_, err = m.AddConn(t.Context(), x, to.acc.Identity().Peer(), peerlink.Outbound)
	if err := errors.Join(err, receive(t, linked)); err != nil {
		t.Fatal(err)
	}
	return m
}

// A command listens for all, and takes nothing for a while: 100 devices that are
// nobody's open more channels than there are places for strangers. The channel of a
// contact has its place, and is carried; then strangers' places are free again.
//
// case: S12
func TestStrangersChannelsTakeNoPlacesOfContacts(t *testing.T) {
	local := street(t)
	alice, bob := open(t, t.TempDir()+"/alice", local), open(t, t.TempDir()+"/bob", local)
	alice.add(t, "bob", bob.id())
	l, err := alice.client.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var held []net.Conn
	dial := func(m *peerlink.ConnectionManager, to identity.DeviceID) net.Conn {
		c, err := m.ConnectDevice(t.Context(), to, "test://x", peerlink.ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		return c
	}
	for range 100 {
		m := stranger(t, alice)
		for range 2 {
			dial(m, alice.id())
		}
	}
	reset := (*channel.ResetError)(nil)
	if _, err := held[len(held)-1].Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != channel.CodeResource {
		t.Errorf("a stranger without a place: %v", err)
	}
	c := dial(bob.acc.ConnectionManager(), alice.id())
	if _, err := c.Write([]byte("from a contact")); err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				heard <- err
				return
			}
			if p, _ := peerlink.PeerOf(c); p.Device == bob.id() {
				text := make([]byte, len("from a contact"))
				_, err := io.ReadFull(c, text)
				heard <- errors.Join(err, c.Close())
				return
			}
			defer c.Close()
		}
	}()
	if err := receive(t, heard); err != nil {
		t.Errorf("a contact's channel: %v", err)
	}
	_ = l.Close()
	for _, c := range held {
		_ = c.Close()
	}
	for deadline := time.Now().Add(within); ; {
		if members, strangers := alice.d.places.Used(); members+strangers == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d and %d places are still taken", members, strangers)
		}
		if _, err := control.OpStatus.Ask(t.Context(), alice.client, control.None{}); err != nil {
			t.Fatal(err)
		}
	}
}

// 100 devices that are nobody's have said something, and more has come than there is
// room for at once. A contact's message is there, and stays when what strangers have
// said is deleted.
//
// case: S7
func TestStrangersMessagesAreApartFromContacts(t *testing.T) {
	local := street(t)
	alice, bob := open(t, t.TempDir()+"/alice", local), open(t, t.TempDir()+"/bob", local)
	alice.add(t, "bob", bob.id())
	said := make(chan error, 100)
	for range cap(said) {
		m := stranger(t, alice)
		go func() {
			c, err := m.ConnectDevice(t.Context(), alice.id(), chat.URI, peerlink.ConnectOptions{})
			if err != nil {
				said <- err
				return
			}
			defer c.Close()
			ms := peerlink.NewMessages(c)
			err = ms.Send([]byte(`{"id":"00000000000000000000000000000001","at":1,"text":"from a stranger"}`))
			if err == nil {
				_, err = ms.Receive()
			}
			said <- err
		}()
	}
	if _, err := control.OpSay.Ask(t.Context(), bob.client, control.Say{To: alice.id(), Text: "from a contact"}); err != nil {
		t.Fatal(err)
	}
	for range cap(said) {
		if err := receive(t, said); err != nil {
			t.Errorf("a stranger's message: %v", err)
		}
	}
	talks := func() []control.Talk {
		all, err := control.OpTalks.Ask(t.Context(), alice.client, control.None{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for deadline := time.Now().Add(within); len(talks()) <= cap(said); {
		if time.Now().After(deadline) {
			t.Fatalf("there are %d conversations", len(talks()))
		}
	}
	n, err := control.OpForget.Ask(t.Context(), alice.client, control.Forget{Strangers: true})
	if err != nil || n != int64(cap(said)) {
		t.Errorf("%d messages of strangers were deleted, %v", n, err)
	}
	if left := talks(); len(left) != 1 || left[0].Peer != bob.id() {
		t.Errorf("left are %v", left)
	}
}

// A person is told of devices that may not, but not as often as they come.
//
// case: S13
func TestFewOfManyRefusalsAreTold(t *testing.T) {
	alice := open(t, t.TempDir()+"/alice", street(t))
	told := make(chan identity.DeviceID, 1000)
	began := time.Now()
	what := control.Listen{Pattern: "test://x", From: []identity.DeviceID{{1}}}
	l, err := alice.client.ListenTo(t.Context(), what, func(p identity.Peer) { told <- p.Device })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	for range 50 {
		m := stranger(t, alice)
		for range 4 {
			if _, err := m.ConnectDevice(t.Context(), alice.id(), "test://x", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrDeclined) {
				t.Fatal(err)
			}
		}
	}
	receive(t, told)
	_ = l.Close()
	receive(t, ended)
	if n, most := 1+len(told), maxNotices+1+int(time.Since(began)/time.Second); n > most {
		t.Errorf("told of %d, want at most %d", n, most)
	}
}

// What a device has said before it became a contact, or was allowed, is not strangers'.
//
// case: S7
func TestMessagesOfNewContactsAreNotStrangers(t *testing.T) {
	local, dir := street(t), t.TempDir()
	alice := open(t, dir+"/alice", local)
	met, allowed, other := open(t, dir+"/met", local), open(t, dir+"/allowed", local), open(t, dir+"/other", local)
	events := alice.d.talk.service.Events(t.Context())
	for _, h := range []*house{met, allowed, other} {
		if _, err := control.OpSay.Ask(t.Context(), h.client, control.Say{To: alice.id(), Text: "hello"}); err != nil {
			t.Fatal(err)
		}
		receive(t, events)
	}
	alice.add(t, "met", met.id())
	met.link(t, alice)
	if err := alice.acc.AllowPeer(allowed.acc.Identity().Peer()); err != nil {
		t.Fatal(err)
	}
	if n, err := control.OpForget.Ask(t.Context(), alice.client, control.Forget{Strangers: true}); n != 1 || err != nil {
		t.Errorf("%d messages of strangers were deleted, %v; want the other's", n, err)
	}
}
