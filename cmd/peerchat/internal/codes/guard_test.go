package codes

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"

	"peerlink/identity"
)

func TestAfterThreeWrongGuessesACodeIsDead(t *testing.T) {
	g := NewGuard()
	wrong := terms(Joiner, alice, nil)
	wrong.Code.Words = "academy-academy"
	for i := range MaxWrong {
		select {
		case <-g.Dead():
			t.Fatalf("dead after %d guesses", i)
		default:
		}
		a, b := run(t, terms(Inviter, bob, g), wrong)
		if !errors.Is(a.err, ErrWrong) || !errors.Is(b.err, ErrWrong) {
			t.Fatalf("guess %d: %v, %v", i, a.err, b.err)
		}
		if last := i == MaxWrong-1; errors.Is(a.err, ErrSpent) != last {
			t.Errorf("guess %d: the inviter is told %v", i, a.err)
		}
	}
	<-g.Dead()
	a, b := run(t, terms(Inviter, bob, g), terms(Joiner, alice, nil))
	if !errors.Is(a.err, ErrSpent) || !errors.Is(b.err, ErrSpent) || errors.Is(b.err, ErrWrong) {
		t.Errorf("the right words, too late: %v, %v", a.err, b.err)
	}
	if g.Wrong() != MaxWrong || !g.Winner().IsZero() {
		t.Errorf("%d wrong, winner %v", g.Wrong(), g.Winner())
	}
}

// Many proofs may come as far as the guess at once; whoever guesses in all of
// them still has three guesses.
func TestGuessesAtOnceAreNotMoreThanThree(t *testing.T) {
	const many = 20
	g := NewGuard()
	wrong := terms(Joiner, alice, nil)
	wrong.Code.Words = "academy-academy"
	type attempt struct {
		conn    net.Conn
		confirm []byte
		host    <-chan result
	}
	var all []attempt
	for range many {
		a, b := net.Pipe()
		at := attempt{conn: b, host: prove(t.Context(), a, terms(Inviter, bob, g))}
		e, err := newExchange(wrong)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(frame(kindShare, append([]byte{version}, e.mine...)...)); err != nil {
			t.Fatal(err)
		}
		theirs, err := readShare(b)
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.finish(Joiner, theirs)
		if err != nil {
			t.Fatal(err)
		}
		at.confirm = s.joiner
		all = append(all, at)
	}
	var mu sync.Mutex
	answers := map[refusal]int{}
	var wg sync.WaitGroup
	for _, at := range all {
		wg.Go(func() {
			_, _ = at.conn.Write(frame(kindConfirm, at.confirm...))
			k, body, err := readFrame(at.conn)
			_ = at.conn.Close()
			<-at.host
			mu.Lock()
			defer mu.Unlock()
			if err != nil || k != kindNo || len(body) != 1 {
				t.Errorf("answer %d %x, %v", k, body, err)
				return
			}
			answers[refusal(body[0])]++
		})
	}
	wg.Wait()
	if answers[noWrong] != MaxWrong || answers[noSpent] != many-MaxWrong {
		t.Errorf("answers %v, want %d times wrong and then no word about it", answers, MaxWrong)
	}
}

func TestOfTwoWhoComeAtOnceOneGetsThrough(t *testing.T) {
	g := NewGuard()
	joiners := []identity.DeviceID{bob, mallory} // mallory was told the code, too
	type ends struct{ host, joiner <-chan result }
	var all []ends
	var conns []net.Conn
	for _, id := range joiners {
		a, b := net.Pipe()
		tt := terms(Joiner, alice, nil)
		tt.Me = id
		all = append(all, ends{prove(t.Context(), a, terms(Inviter, id, g)), prove(t.Context(), b, tt)})
		conns = append(conns, a, b)
	}
	var won int
	for i, e := range all {
		a, b := <-e.host, <-e.joiner
		switch {
		case a.err == nil && b.err == nil:
			won++
			if g.Winner() != joiners[i] {
				t.Errorf("winner %v, want %v", g.Winner(), joiners[i])
			}
		case !errors.Is(a.err, ErrSpent) || !errors.Is(b.err, ErrSpent):
			t.Errorf("%v, %v", a.err, b.err)
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
	if won != 1 || g.Wrong() != 0 {
		t.Errorf("%d got through, %d wrong", won, g.Wrong())
	}
}

// A confirmation that got lost is no dead end: the same device comes again.
func TestOnlyTheDeviceThatProvedComesAgain(t *testing.T) {
	g := NewGuard()
	if a, b := run(t, terms(Inviter, bob, g), terms(Joiner, alice, nil)); a.err != nil || b.err != nil {
		t.Fatal(a.err, b.err)
	}
	late := terms(Joiner, alice, nil)
	late.Me = mallory
	if a, b := run(t, terms(Inviter, mallory, g), late); !errors.Is(a.err, ErrSpent) || !errors.Is(b.err, ErrSpent) {
		t.Errorf("another device: %v, %v", a.err, b.err)
	}
	if a, b := run(t, terms(Inviter, bob, g), terms(Joiner, alice, nil)); a.err != nil || b.err != nil || !bytes.Equal(a.key[:], b.key[:]) {
		t.Errorf("the same device: %v, %v", a.err, b.err)
	}
}
