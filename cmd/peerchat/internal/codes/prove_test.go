package codes

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// result is what an end of a proof comes to.
type result struct {
	key [KeyLen]byte
	err error
}

// prove runs one end and closes its channel after an error.
func prove(ctx context.Context, c net.Conn, t Terms) <-chan result {
	out := make(chan result, 1)
	go func() {
		key, err := Prove(ctx, c, t)
		if err != nil {
			_ = c.Close()
		}
		out <- result{key, err}
	}()
	return out
}

// run has alice and bob prove to each other over a pipe.
func run(t *testing.T, inviter, joiner Terms) (atAlice, atBob result) {
	t.Helper()
	a, b := net.Pipe()
	ac, bc := prove(t.Context(), a, inviter), prove(t.Context(), b, joiner)
	atAlice, atBob = <-ac, <-bc
	_, _ = a.Close(), b.Close()
	return atAlice, atBob
}

func TestBothEndsOfACodeProveItAndGetOneKey(t *testing.T) {
	g := NewGuard()
	a, b := run(t, terms(Inviter, bob, g), terms(Joiner, alice, nil))
	if a.err != nil || b.err != nil {
		t.Fatal(a.err, b.err)
	}
	if a.key != b.key || a.key == [KeyLen]byte{} {
		t.Errorf("keys %x and %x", a.key, b.key)
	}
	if g.Winner() != bob || g.Wrong() != 0 {
		t.Errorf("winner %v, %d wrong", g.Winner(), g.Wrong())
	}
	again, _ := run(t, terms(Inviter, bob, g), terms(Joiner, alice, nil))
	if again.err != nil || again.key == a.key {
		t.Errorf("the same device once more: %v; the key must be a new one", again.err)
	}
}

func TestTheChannelIsLeftAsItWasAfterAProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ac, bc := prove(t.Context(), a, terms(Inviter, bob, NewGuard())), prove(t.Context(), b, terms(Joiner, alice, nil))
		if a, b := <-ac, <-bc; a.err != nil || b.err != nil {
			t.Fatal(a.err, b.err)
		}
		time.Sleep(2 * proveTimeout) // deadlines of the proof would be over
		go func() {
			_, _ = a.Write([]byte("welcome"))
			_ = a.Close()
		}()
		if got, err := io.ReadAll(b); err != nil || string(got) != "welcome" {
			t.Errorf("read %q, %v", got, err)
		}
		_ = b.Close()
	})
}

func TestWhateverDiffersNothingIsProven(t *testing.T) {
	for name, change := range map[string]func(*Terms){
		"the first word":  func(t *Terms) { t.Code.Words = "ambient-mango" },
		"the second word": func(t *Terms) { t.Code.Words = "amber-academy" },
		"swapped words":   func(t *Terms) { t.Code.Words = "mango-amber" },
		"the number":      func(t *Terms) { t.Code.Number = 8 },
		"the purpose":     func(t *Terms) { t.Purpose = "device" },
		"the joiner's id": func(t *Terms) { t.Me = mallory },
		"the called id":   func(t *Terms) { t.Peer = mallory },
	} {
		t.Run(name, func(t *testing.T) {
			g, joiner := NewGuard(), terms(Joiner, alice, nil)
			change(&joiner)
			a, b := run(t, terms(Inviter, bob, g), joiner)
			if !errors.Is(a.err, ErrWrong) || !errors.Is(b.err, ErrWrong) || errors.Is(b.err, ErrSpent) {
				t.Errorf("inviter: %v; joiner: %v", a.err, b.err)
			}
			if a.key != b.key || a.key != [KeyLen]byte{} || g.Wrong() != 1 || !g.Winner().IsZero() {
				t.Errorf("keys %x, %x, %d wrong, winner %v", a.key, b.key, g.Wrong(), g.Winner())
			}
		})
	}
}

// Mallory has a link to each, both proven, and passes everything on: what the
// ends prove names the devices of their own links, so it fits neither.
func TestAManInTheMiddleOfTwoLinksProvesNothing(t *testing.T) {
	g := NewGuard()
	a, toAlice := net.Pipe()
	b, toBob := net.Pipe()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{toAlice, toBob}, {toBob, toAlice}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
		})
	}
	ac := prove(t.Context(), a, terms(Inviter, mallory, g))
	bc := prove(t.Context(), b, terms(Joiner, mallory, nil))
	atAlice, atBob := <-ac, <-bc
	_, _ = a.Close(), b.Close()
	wg.Wait()
	if !errors.Is(atAlice.err, ErrWrong) || !errors.Is(atBob.err, ErrWrong) {
		t.Errorf("inviter: %v; joiner: %v", atAlice.err, atBob.err)
	}
	if g.Wrong() != 1 || !g.Winner().IsZero() {
		t.Errorf("%d wrong, winner %v", g.Wrong(), g.Winner())
	}
}

// tape keeps what one end sends.
type tape struct {
	net.Conn
	sent bytes.Buffer
}

func (c *tape) Write(p []byte) (int, error) {
	c.sent.Write(p)
	return c.Conn.Write(p)
}

// recorded returns what a joiner said in a proof that went well.
func recorded(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	rec := &tape{Conn: b}
	ac, bc := prove(t.Context(), a, terms(Inviter, bob, NewGuard())), prove(t.Context(), rec, terms(Joiner, alice, nil))
	if a, b := <-ac, <-bc; a.err != nil || b.err != nil {
		t.Fatal(a.err, b.err)
	}
	_, _ = a.Close(), b.Close()
	return rec.sent.Bytes()
}

// play says something to an inviter, hears what it says and returns how its
// proof came out.
func play(t *testing.T, g *Guard, said []byte) (heard []byte, r result) {
	t.Helper()
	a, b := net.Pipe()
	ac := prove(t.Context(), a, terms(Inviter, bob, g))
	listened := make(chan []byte)
	go func() {
		heard, _ := io.ReadAll(b)
		listened <- heard
	}()
	_, _ = b.Write(said)
	_ = b.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // in a bubble: when all wait
	heard = <-listened
	_ = b.Close()
	return heard, <-ac
}

func TestAReplayIsAWrongGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said, g := recorded(t), NewGuard()
		heard, r := play(t, g, said)
		if !errors.Is(r.err, ErrWrong) || g.Wrong() != 1 {
			t.Errorf("%v, %d wrong", r.err, g.Wrong())
		}
		if !bytes.HasSuffix(heard, frame(kindNo, byte(noWrong))) {
			t.Errorf("heard %x", heard)
		}
	})
}

// fault: A3
func TestAProofThatIsCutAnywhereIsNoGuessAndNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := recorded(t)
		for n := range said {
			g := NewGuard()
			_, r := play(t, g, said[:n])
			if !errors.Is(r.err, io.ErrUnexpectedEOF) && !errors.Is(r.err, io.ErrClosedPipe) || g.Wrong() != 0 || !g.Winner().IsZero() {
				t.Fatalf("cut at %d: %v, %d wrong, winner %v", n, r.err, g.Wrong(), g.Winner())
			}
		}
	})
}

// fault: A1
func TestWhatIsNoProofIsRefused(t *testing.T) {
	share := func(point ...byte) []byte { return frame(kindShare, append([]byte{version}, point...)...) }
	infinity := make([]byte, shareLen)
	offCurve := append([]byte{4}, bytes.Repeat([]byte{1}, shareLen-1)...)
	tooLarge := append([]byte{4}, bytes.Repeat([]byte{0xff}, shareLen-1)...)
	for name, c := range map[string]struct {
		said []byte
		want string
	}{
		"giant frame":            {binary.BigEndian.AppendUint16(nil, 0xffff), "it announces 65535 bytes"},
		"empty frame":            {[]byte{0, 0}, "it announces 0 bytes"},
		"wrong kind":             {frame(kindConfirm, make([]byte, macLen)...), "kind 2 where one of kind 1 belongs"},
		"unknown kind":           {frame(77), "kind 77"},
		"short share":            {frame(kindShare, 1, 4), "has 2 bytes, want 66"},
		"later version":          {frame(kindShare, append([]byte{9}, infinity...)...), "version 9"},
		"point at infinity":      {share(infinity...), "not a point"},
		"infinity as affine 0,0": {share(append([]byte{4}, infinity[1:]...)...), "not a point"},
		"point off the curve":    {share(offCurve...), "not a point"},
		"coordinates too large":  {share(tooLarge...), "not a point"},
		"no of nothing":          {frame(kindNo), "kind 3 where one of kind 1 belongs"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGuard()
				_, r := play(t, g, c.said)
				if r.err == nil || !strings.Contains(r.err.Error(), c.want) || errors.Is(r.err, ErrWrong) {
					t.Errorf("%v, want %q", r.err, c.want)
				}
				if g.Wrong() != 0 {
					t.Errorf("%d wrong guesses", g.Wrong())
				}
			})
		})
	}
}

// Whoever only pretends to have made the code learns whether one guess of his
// was right, as anybody does, and proves nothing.
func TestAJoinerBelievesNobodyWithoutTheWords(t *testing.T) {
	for name, lie := range map[string][]byte{
		"an invented confirmation": frame(kindConfirm, make([]byte, macLen)...),
		"nothing":                  nil,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			bc := prove(t.Context(), b, terms(Joiner, alice, nil))
			impostor := terms(Inviter, bob, NewGuard())
			impostor.Code.Words = "academy-academy"
			e, err := newExchange(impostor)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := readShare(a)
			if err != nil {
				t.Fatal(err)
			}
			s, err := e.finish(Inviter, theirs)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = a.Write(frame(kindShare, append([]byte{version}, e.mine...)...))
			confirm, err := expect(a, kindConfirm, macLen)
			if err != nil || bytes.Equal(confirm, s.joiner) {
				t.Errorf("confirmation %x, %v", confirm, err)
			}
			_, _ = a.Write(lie)
			_ = a.Close()
			if r := <-bc; r.err == nil || r.key != [KeyLen]byte{} || lie != nil && !errors.Is(r.err, ErrWrong) {
				t.Errorf("key %x, %v", r.key, r.err)
			}
		})
	}
}

// fault: D7
func TestAProofThatStallsEndsInTime(t *testing.T) {
	for _, role := range []Role{Joiner, Inviter} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			began := time.Now()
			tt := terms(role, bob, NewGuard())
			if role == Joiner {
				tt = terms(role, alice, nil)
			}
			r := <-prove(t.Context(), a, tt)
			if took := time.Since(began); !errors.Is(r.err, os.ErrDeadlineExceeded) || took != proveTimeout {
				t.Errorf("role %d: %v after %v", role, r.err, took)
			}
		})
	}
}

func TestTheCallersContextEndsAProof(t *testing.T) {
	why := errors.New("the person has changed their mind")
	for _, when := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			if when == 0 {
				cancel(why)
			}
			rc := prove(ctx, a, terms(Inviter, bob, NewGuard()))
			time.Sleep(when)
			cancel(why)
			if r := <-rc; !errors.Is(r.err, why) {
				t.Errorf("%v", r.err)
			}
		})
	}
}

func TestTermsThatCannotBeAreRefused(t *testing.T) {
	good := terms(Inviter, bob, NewGuard())
	for name, change := range map[string]func(*Terms){
		"no guard":       func(t *Terms) { t.Guard = nil },
		"no purpose":     func(t *Terms) { t.Purpose = "" },
		"long purpose":   func(t *Terms) { t.Purpose = strings.Repeat("x", 65) },
		"no role":        func(t *Terms) { t.Role = 2 },
		"nobody":         func(t *Terms) { t.Peer = identity.DeviceID{} },
		"only itself":    func(t *Terms) { t.Peer = t.Me },
		"without words":  func(t *Terms) { t.Code.Words = "" },
		"without itself": func(t *Terms) { t.Me = identity.DeviceID{} },
	} {
		terms := good
		change(&terms)
		a, b := net.Pipe()
		if _, err := Prove(t.Context(), a, terms); err == nil || errors.Is(err, ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
		_, _ = a.Close(), b.Close()
	}
}

// FuzzReadFrame: no frame is longer than it may be, and none is read beyond its
// end.
func FuzzReadFrame(f *testing.F) {
	f.Add(frame(kindShare, make([]byte, 1+shareLen)...))
	f.Add(frame(kindNo, byte(noWrong)))
	f.Add([]byte{0xff, 0xff, 1})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		k, body, err := readFrame(r)
		if err != nil {
			return
		}
		if len(body) >= maxFrame || r.Len() != len(in)-3-len(body) {
			t.Fatalf("%d bytes of body, %d left of %d", len(body), r.Len(), len(in))
		}
		if again := frame(k, body...); !bytes.Equal(again, in[:len(again)]) {
			t.Fatalf("%x was read as %x", in, again)
		}
	})
}

// FuzzShare: what a stranger sends as its share ends in an error or in secrets,
// never in a panic of the library beneath.
func FuzzShare(f *testing.F) {
	e, err := newExchange(terms(Joiner, alice, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.mine, true)
	f.Add(e.mine, false)
	f.Add(make([]byte, shareLen), true)
	f.Add(append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...), true)
	f.Fuzz(func(t *testing.T, share []byte, inviter bool) {
		tt := terms(Joiner, alice, nil)
		if inviter {
			tt = terms(Inviter, bob, NewGuard())
		}
		e, err := newExchange(tt)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := e.finish(tt.Role, share); err == nil && (len(share) != shareLen || s.key == [KeyLen]byte{}) {
			t.Fatalf("%x was taken", share)
		}
	})
}
