package chat

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"peerlink"
	"peerlink/identity"
)

// within bounds the wait for an event.
const within = 30 * time.Second

// await reads events until one fits.
func await(t *testing.T, events <-chan Message, fits func(Message) bool) Message {
	t.Helper()
	over := time.After(within)
	for {
		select {
		case m, ok := <-events:
			switch {
			case !ok:
				t.Fatal("the events ended")
			case fits(m):
				return m
			}
		case <-over:
			t.Fatal("no event fits")
		}
	}
}

func texts(t *testing.T, s *Store, peer identity.DeviceID) (out []string) {
	t.Helper()
	ms, err := s.History(peer, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		out = append(out, m.Text)
	}
	return out
}

func TestMessagesToADeviceThatIsAwayAreDelivered(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	as, bs := store(t), store(t)
	a, b := service(t, as, alice), service(t, bs, bob)
	events, arrivals := a.Events(t.Context()), b.Events(t.Context())
	for i := range 3 {
		m, err := a.Send(bob.device(), fmt.Sprint("message ", i))
		if err != nil || m.Mark != Queued {
			t.Fatalf("%v, %v", m, err)
		}
	}
	link(t, alice, bob) // he is there
	for i := range 3 {
		got := await(t, arrivals, func(Message) bool { return true })
		if got.Text != fmt.Sprint("message ", i) || got.Peer != alice.device() || got.Mine {
			t.Fatalf("bob has %+v", got)
		}
		await(t, events, func(m Message) bool { return m.Mark == Delivered && m.Text == got.Text })
	}
	if left, err := as.waiting(bob.device(), 10); err != nil || len(left) != 0 {
		t.Errorf("still waiting: %v, %v", left, err)
	}
	if _, err := b.Send(alice.device(), "and back"); err != nil {
		t.Fatal(err)
	}
	await(t, events, func(m Message) bool { return m.Text == "and back" && !m.Mine })
}

// The receiver dies after it has stored a message and before the receipt has
// come: the message is sent again, and is there once.
// fault: I3
func TestLostReceiptDoesNotDoubleAMessage(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	as, bs := store(t), store(t)
	m, _, err := as.add(Message{Peer: bob.device(), ID: [idLen]byte{7}, Mine: true, Text: "once"}, member)
	if err != nil {
		t.Fatal(err)
	}
	was := m
	was.Peer, was.Mine, was.Seq = alice.device(), false, 0
	if _, added, err := bs.add(was, stranger); err != nil || !added { // what a daemon did that was killed
		t.Fatal(added, err)
	}
	service(t, bs, bob)
	link(t, alice, bob)
	a := service(t, as, alice) // it begins with what waits
	events := a.Events(t.Context())
	if left, err := as.waiting(bob.device(), 1); err != nil {
		t.Fatal(err)
	} else if len(left) == 1 {
		await(t, events, func(e Message) bool { return e.Seq == m.Seq && e.Mark == Delivered })
	}
	if got := texts(t, bs, alice.device()); len(got) != 1 || got[0] != "once" {
		t.Errorf("bob has %q", got)
	}
}

// The link dies again and again, at any moment.
// fault: I3
func TestEveryMessageArrivesOnceThoughLinksDie(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	as, bs := store(t), store(t)
	a, b := service(t, as, alice), service(t, bs, bob)
	events, arrivals := a.Events(t.Context()), b.Events(t.Context())
	cut := link(t, alice, bob)
	const n = 60
	delivered := 0
	for i := range n {
		if _, err := a.Send(bob.device(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 { // while some are under way
			await(t, arrivals, func(m Message) bool { return m.Text == fmt.Sprint(i-5) })
			cut()
			cut = link(t, alice, bob)
		}
	}
	for delivered < n {
		await(t, events, func(m Message) bool { return m.Mark == Delivered })
		delivered++
	}
	got := texts(t, bs, alice.device())
	if len(got) != n {
		t.Fatalf("%d messages of %d: %q", len(got), n, got)
	}
	for i, text := range got {
		if text != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, text)
		}
	}
}

// fault: H9
func TestTextsThatCannotBeAreRefused(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	a := service(t, store(t), alice)
	bs := store(t)
	b := service(t, bs, bob)
	for _, text := range []string{"", "\xff", string(make([]byte, 10<<20))} {
		if _, err := a.Send(bob.device(), text); err == nil {
			t.Errorf("%.20q… is taken", text)
		}
	}
	// Whoever speaks the protocol himself gets a no, and the link lives.
	link(t, alice, bob)
	arrivals := b.Events(t.Context())
	conn, err := alice.m.ConnectDevice(t.Context(), bob.device(), URI, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ms := peerlink.NewMessages(conn)
	for _, l := range []string{
		`{"id":"00000000000000000000000000000001","at":1,"text":""}`,
		`{"id":"00000000000000000000000000000002","at":1,"text":"` + string(make1(MaxText+1)) + `"}`,
		`{"id":"00000000000000000000000000000003","at":1,"text":"\u001b[2J fine, it is escaped when it is shown"}`,
	} {
		if err := ms.Send([]byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		r, err := ms.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if id, why, err := decodeReceipt(r); err != nil || id[15] != byte(i+1) || (why == "") != (i == 2) {
			t.Errorf("receipt %d: %q, %v", i, r, err)
		}
	}
	await(t, arrivals, func(m Message) bool { return m.ID[15] == 3 })
	if err := ms.Send([]byte(`{"id":"x"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Receive(); err == nil {
		t.Error("a broken message is answered")
	}
	if got := texts(t, bs, alice.device()); len(got) != 1 {
		t.Errorf("bob has %q", got)
	}
}

func make1(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

// fault: I3
func TestMessagesWaitOverARestart(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	path := filepath.Join(t.TempDir(), "a.db")
	as := openAt(t, path)
	a, err := New(Config{Store: as, Net: alice.m})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Send(bob.device(), "later"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), as.Close()); err != nil {
		t.Fatal(err)
	}
	b := service(t, store(t), bob)
	arrivals := b.Events(t.Context())
	service(t, openAt(t, path), alice)
	link(t, alice, bob)
	if m := await(t, arrivals, func(Message) bool { return true }); m.Text != "later" {
		t.Errorf("%+v", m)
	}
}
