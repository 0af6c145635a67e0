package chat

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

func TestASlowReaderIsToldOfEachMessage(t *testing.T) {
	alice := newPerson(t, "alice")
	st := store(t)
	s := service(t, st, alice)
	bob := newPerson(t, "bob").device()
	n := byte(0)
	add := func(text string, mine bool) Message {
		t.Helper()
		n++
		m, _, err := st.add(Message{Peer: bob, ID: [idLen]byte{n}, Mine: mine, Text: text}, member)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	add("before", false)
	mine := add("mine", true)
	ctx, cancel := context.WithCancel(t.Context())
	following, blocked, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var heard []string
	ended := make(chan error, 1)
	go func() {
		ended <- s.Follow(ctx, func() error { close(following); return nil }, func(m Message) error {
			if m.Text == "0" {
				close(blocked)
				<-release
			}
			if !m.Mine || m.Mark == Delivered {
				heard = append(heard, m.Text)
			}
			if m.Text == "last" {
				cancel()
			}
			return nil
		})
	}()
	<-following
	s.tell(add("0", false))
	<-blocked
	for range maxEvents + 1 { // the reader is cut off
		s.tell(mine)
	}
	if err := st.mark(mine.Seq, Delivered, ""); err != nil {
		t.Fatal(err)
	}
	want := []string{"0", "mine"}
	for i := 1; i <= 2*page; i++ {
		want = append(want, fmt.Sprint(i))
		add(want[len(want)-1], false)
	}
	add("last", false)
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if want = append(want, "last"); !slices.Equal(heard, want) {
		t.Errorf("it heard %q, want %q", heard, want)
	}
}

// Two devices' messages may be told of in another order than they were stored in.
func TestAReaderIsToldInTheOrderOfTheStore(t *testing.T) {
	st := store(t)
	s := service(t, st, newPerson(t, "alice"))
	var ms []Message
	for i := range 3 {
		m, _, err := st.add(Message{Peer: newPerson(t, "bob").device(), ID: [idLen]byte{1}, Text: fmt.Sprint(i)}, member)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	var heard []string
	f := &follower{s: s, last: ms[0].Seq - 1, tell: func(m Message) error { heard = append(heard, m.Text); return nil }}
	for _, m := range []Message{ms[2], ms[0], ms[1]} {
		if err := f.event(m); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"0", "1", "2"}; !slices.Equal(heard, want) {
		t.Errorf("it heard %q, want %q", heard, want)
	}
}
