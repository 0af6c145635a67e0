package signalling

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLine is a line within the process: what is fed to it is received.
type fakeLine struct {
	inc  chan any // received or error
	sent []string
	send func(ctx context.Context) error
}

func newLine() *fakeLine { return &fakeLine{inc: make(chan any, 256)} }

func (l *fakeLine) Send(ctx context.Context, _ identity.DeviceID, msg []byte) error {
	if l.send != nil {
		if err := l.send(ctx); err != nil {
			return err
		}
	}
	l.sent = append(l.sent, string(msg))
	return nil
}

func (l *fakeLine) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case v := <-l.inc:
		if r, ok := v.(received); ok {
			return r.from, r.msg, nil
		}
		return identity.Peer{}, nil, v.(error)
	case <-ctx.Done():
		return identity.Peer{}, nil, ctx.Err()
	}
}

func ofKind(t testing.TB, k uint8) []byte {
	t.Helper()
	b, err := msgpack.Marshal(struct {
		ID   []byte `msgpack:"i"`
		Kind uint8  `msgpack:"k"`
		SDP  string `msgpack:"s"`
	}{[]byte{1, 2}, k, "x"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func peer(n byte) identity.Peer { return identity.Peer{Device: identity.DeviceID{n}} }

// Each branch gets its kinds and no other; what belongs to nobody is dropped,
// and a branch that nobody reads does not hold the others up.
//
// fault: E2
func TestBranchesGetTheirKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine()
		s := Split(line, nil, nil, Kinds{1, 15}, Kinds{16, 19})
		for range queueLen + 10 {
			line.inc <- received{peer(1), ofKind(t, 16)}
		}
		for _, k := range []uint8{0, 20, 255} {
			line.inc <- received{peer(2), ofKind(t, k)}
		}
		line.inc <- received{peer(3), []byte{0xc1}}
		line.inc <- received{peer(3), []byte{0x80}}
		line.inc <- received{peer(4), ofKind(t, 15)}
		from, msg, err := s.Branch(0).Receive(t.Context())
		if k, kerr := Kind(msg); err != nil || kerr != nil || k != 15 || from.Device != peer(4).Device {
			t.Errorf("kind %d of %s, %v, %v", k, from.Device, err, kerr)
		}
		for range queueLen {
			if _, msg, err := s.Branch(1).Receive(t.Context()); err != nil || string(msg) != string(ofKind(t, 16)) {
				t.Fatalf("%x, %v", msg, err)
			}
		}
		if n := s.dropped.Load(); n != 15 {
			t.Errorf("%d were dropped, want 15", n)
		}
		if err := s.Branch(1).Send(t.Context(), peer(1).Device, []byte("back")); err != nil || line.sent[0] != "back" {
			t.Errorf("sent %q, %v", line.sent, err)
		}
		s.Close()
		if _, _, err := s.Branch(0).Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A hundred strangers fill the branch; a member's message has room, and goes first.
//
// case: S24
func TestStrangersDoNotKeepMembersFromABranch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line, trust := newLine(), new(identity.Trust)
		if err := trust.Set(peer(200).Device, identity.Allowed); err != nil {
			t.Fatal(err)
		}
		s := Split(line, trust, nil, Kinds{16, 19})
		defer s.Close()
		j := Join(trust, nil, s.Branch(0))
		defer j.Close()
		for n := range byte(200) { // which fill both, one after the other
			line.inc <- received{peer(n), ofKind(t, 16)}
		}
		synctest.Wait()
		line.inc <- received{peer(200), ofKind(t, 17)}
		synctest.Wait()
		if from, _, err := j.Receive(t.Context()); err != nil || from.Device != peer(200).Device {
			t.Errorf("%v comes first, %v", from.Device, err)
		}
		for range queueLen {
			if _, _, err := j.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := j.waiting.Len() + s.Branch(0).waiting.Len(); n != 0 {
			t.Errorf("%d more of the strangers wait", n)
		}
	})
}

// A line's passing failure is waited out; its end is that of the branches.
func TestALineThatFailsComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine()
		s := Split(line, nil, nil, Kinds{16, 19})
		defer s.Close()
		for range 3 {
			line.inc <- errors.New("out of order")
		}
		line.inc <- received{peer(1), ofKind(t, 17)}
		began := time.Now()
		if _, _, err := s.Branch(0).Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 7*firstPause {
			t.Errorf("took %v", d)
		}
		line.inc <- received{peer(1), ofKind(t, 18)}
		line.inc <- fmt.Errorf("gone: %w", net.ErrClosed)
		synctest.Wait()
		if _, msg, err := s.Branch(0).Receive(t.Context()); err != nil || string(msg) != string(ofKind(t, 18)) {
			t.Errorf("what came before the end: %x, %v", msg, err)
		}
		if _, _, err := s.Branch(0).Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
	})
}

// A message goes the way over which the device talks, else in order; a line that
// hangs costs three seconds and not the call.
func TestJoinedLinesAreTriedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, three := newLine(), newLine(), newLine()
		j := Join(nil, nil, one, two, three)
		defer j.Close()
		one.send = func(context.Context) error { return errors.New("absent") }
		two.send = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		began := time.Now()
		if err := j.Send(t.Context(), peer(1).Device, []byte("a")); err != nil || len(three.sent) != 1 {
			t.Errorf("%q, %v", three.sent, err)
		}
		if d := time.Since(began); d != tryFor {
			t.Errorf("took %v", d)
		}
		two.send = nil
		three.inc <- received{peer(2), []byte("hello")}
		if from, msg, err := j.Receive(t.Context()); err != nil || from.Device != peer(2).Device || string(msg) != "hello" {
			t.Errorf("%v, %q, %v", from, msg, err)
		}
		if err := j.Send(t.Context(), peer(2).Device, []byte("b")); err != nil || len(three.sent) != 2 {
			t.Errorf("an answer did not go back the way of the message: %q, %v", three.sent, err)
		}
		if err := j.Send(t.Context(), peer(1).Device, []byte("c")); err != nil || len(two.sent) != 1 {
			t.Errorf("%q, %v", two.sent, err)
		}
		for _, l := range []*fakeLine{two, three} {
			l.send = func(context.Context) error { return errors.New("no") }
		}
		if err := j.Send(t.Context(), peer(2).Device, []byte("d")); err == nil || err.Error() != "no\nabsent\nno" {
			t.Errorf("%q", err)
		}
	})
}

// One line's end leaves the others; the last one's is the end.
func TestJoinedLinesEndWithTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newLine(), newLine()
		j := Join(nil, nil, one, two)
		defer j.Close()
		one.inc <- fmt.Errorf("replaced: %w", net.ErrClosed)
		synctest.Wait()
		two.inc <- received{peer(1), []byte("x")}
		if _, _, err := j.Receive(t.Context()); err != nil {
			t.Error(err)
		}
		two.inc <- fmt.Errorf("gone: %w", net.ErrClosed)
		if _, _, err := j.Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func FuzzKind(f *testing.F) {
	f.Add(ofKind(f, 16))
	f.Add([]byte{0x81, 0xa1, 'k', 0xcd, 1, 0})
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := Kind(b)
		if err != nil {
			return
		}
		if again, err := Kind(append(append([]byte(nil), b...), 0xc1)); err != nil || again != k {
			t.Errorf("kind %d, and with a byte more %d, %v", k, again, err)
		}
		if again, err := Kind(ofKind(t, k)); err != nil || again != k {
			t.Errorf("kind %d is read back as %d, %v", k, again, err)
		}
	})
}
