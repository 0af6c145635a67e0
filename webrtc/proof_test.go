package webrtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// pipe is a data channel within the process.
type pipe struct {
	in, out chan packet
	endc    chan struct{}
	end     func()
}

type packet struct {
	data []byte
	text bool
}

func newPipe() (a, b *pipe) {
	x, y, endc := make(chan packet, 16), make(chan packet, 16), make(chan struct{})
	end := sync.OnceFunc(func() { close(endc) })
	return &pipe{x, y, endc, end}, &pipe{y, x, endc, end}
}

func (p *pipe) ReadDataChannel(b []byte) (int, bool, error) {
	select {
	case m := <-p.in:
		if len(m.data) > len(b) {
			return 0, false, io.ErrShortBuffer
		}
		return copy(b, m.data), m.text, nil
	case <-p.endc:
		return 0, false, io.EOF
	}
}

func (p *pipe) WriteDataChannel(b []byte, text bool) (int, error) {
	select {
	case p.out <- packet{append([]byte(nil), b...), text}:
		return len(b), nil
	case <-p.endc:
		return 0, io.EOF
	}
}

func (p *pipe) BufferedAmount() uint64               { return 0 }
func (p *pipe) SetBufferedAmountLowThreshold(uint64) {}
func (p *pipe) OnBufferedAmountLow(func())           {}

// sides are provers of two devices that fit each other.
func sides(alice, bob *identity.Identity) (a, b prover) {
	pa, pb := fingerprint{1}, fingerprint{2}
	a = prover{me: alice, role: caller, peer: bob.DeviceID(), own: pa, far: pb}
	b = prover{me: bob, role: callee, peer: alice.DeviceID(), own: pb, far: pa}
	return a, b
}

// prove runs both and returns what each made of it.
func prove(t *testing.T, a, b prover) (got [2]identity.Peer, errs [2]error) {
	t.Helper()
	ctx := limit(t, patience)
	x, y := newPipe()
	var wg sync.WaitGroup
	for i, side := range []struct {
		prover
		*pipe
	}{{a, x}, {b, y}} {
		wg.Go(func() {
			if got[i], errs[i] = side.run(ctx, side.pipe, side.end); errs[i] != nil {
				side.end()
			}
		})
	}
	wg.Wait()
	return got, errs
}

func TestProofTellsWhoIsThere(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	a, b := sides(alice, bob)
	got, errs := prove(t, a, b)
	if errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
	if got[0].Device != bob.DeviceID() || got[1].Device != alice.DeviceID() {
		t.Errorf("found %v and %v", got[0], got[1])
	}
}

// What does not fit is refused by both sides, each in its own way.
func TestProofRefusals(t *testing.T) {
	alice, bob, carol := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol")
	banned := func(id *identity.Identity) *identity.Trust {
		tr := &identity.Trust{}
		if err := tr.Set(id.DeviceID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		return tr
	}
	for _, c := range []struct {
		name   string
		change func(a, b *prover)
		want   [2]string // in the errors
	}{
		// fault: D2
		{"other certificates", func(a, _ *prover) { a.far = fingerprint{9} }, [2]string{"DTLS certificates", "DTLS certificates"}},
		{"both ends lied to", func(a, b *prover) { a.far, b.far = fingerprint{9}, fingerprint{9} }, [2]string{"DTLS certificates", "DTLS certificates"}},
		{"same role", func(_, b *prover) { b.role = caller }, [2]string{"did not prove", "did not prove"}},
		// fault: D1
		{"another device", func(a, _ *prover) { a.peer = carol.DeviceID() }, [2]string{"is at the other end", "other device"}},
		{"another caller", func(_, b *prover) { b.peer = carol.DeviceID() }, [2]string{"another device", "is at the other end"}},
		{"caller bans", func(a, _ *prover) { a.trust = banned(bob) }, [2]string{"trust", "not trusted"}},
		{"callee bans", func(_, b *prover) { b.trust = banned(alice) }, [2]string{"not trusted", "trust"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := sides(alice, bob)
			c.change(&a, &b)
			got, errs := prove(t, a, b)
			for i, err := range errs {
				if err == nil {
					t.Errorf("side %d took %v", i, got[i])
					continue
				}
				// The one refuses; the other is refused, or refuses as well.
				var no *calls.UnprovenRefusal
				if !strings.Contains(err.Error(), c.want[i]) && !errors.As(err, &no) {
					t.Errorf("side %d: %v, want %q", i, err, c.want[i])
				}
				var said interface{ Refused() string }
				var unproven interface{ Unproven() bool }
				if errors.As(err, &said) && !errors.As(err, &unproven) {
					t.Errorf("side %d believed an unproven refusal: %v", i, err)
				}
			}
		})
	}
}

// A refusal's reason is cut, not its code, and what is no code is none.
func TestRefusalKeepsItsCode(t *testing.T) {
	for said, want := range map[string]calls.UnprovenRefusal{
		refusal(&unwanted{errors.New(strings.Repeat("x\n", 150))}): {Code: calls.CodeUnwanted, Reason: strings.Repeat("x ", 99)},
		refusal(identity.ErrSignature):                             {Code: calls.CodeNotProven, Reason: "the proof does not fit this channel"},
		refusal(identity.ErrChain):                                 {Reason: "certificate chain refused"},
		"of an older build":                                        {Reason: "of an older build"},
		"x\n-6":                                                    {Reason: "x"},
		"x\n6\n6":                                                  {Reason: "x"},
		"x\n99999999999":                                           {Reason: "x"},
	} {
		no, ok := errors.AsType[*calls.UnprovenRefusal](readRefusal(said))
		if !ok || *no != want || len(said) > calls.MaxReason {
			t.Errorf("%q is read as %+v", said, no)
		}
	}
}

// stranger plays one side by hand.
type stranger struct {
	*pipe
	t *testing.T
}

func (s stranger) say(b []byte, kind messageKind) {
	if _, err := s.WriteDataChannel(b, bool(kind)); err != nil {
		s.t.Errorf("write: %v", err)
	}
}

func (s stranger) hear() packet {
	b := make([]byte, 64<<10)
	n, text, err := s.ReadDataChannel(b)
	if err != nil {
		s.t.Errorf("read: %v", err)
	}
	return packet{b[:n], text}
}

// awaitNo reads until the other side has refused or hung up.
func (p *pipe) awaitNo() {
	for b := make([]byte, 64<<10); ; {
		n, text, err := p.ReadDataChannel(b)
		if err != nil || text && strings.HasPrefix(string(b[:n]), verdictNo) {
			return
		}
	}
}

// strangerNonce is the nonce of the sides that are played by hand.
var strangerNonce = [nonceLen]byte{7}

// greet says hello with shown's chain and a proof that is right but for the
// key, which is signer's.
func (s stranger) greet(shown, signer *identity.Identity, b prover) {
	hello, err := encodeHello(strangerNonce, shown.Peer().Chain())
	if err != nil {
		s.t.Error(err)
	}
	s.say(hello, binary)
	given, _, err := decodeHello(s.hear().data)
	if err != nil {
		s.t.Error(err)
	}
	sig, err := signer.Sign(proofPurpose, statement(caller,
		party{shown.DeviceID(), b.far, strangerNonce}, party{b.me.DeviceID(), b.own, given}))
	if err != nil {
		s.t.Error(err)
	}
	s.say(sig, binary)
}

// A chain shown without its key, a mirror, and noise get nowhere.
func TestProofRefusesStrangers(t *testing.T) {
	alice, bob, mallory := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "mallory")
	hello := func(id *identity.Identity) []byte {
		b, err := encodeHello(strangerNonce, id.Peer().Chain())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name string
		play func(s stranger, b prover)
		want error // nil: any
	}{
		// fault: D2
		{"chain without its key", func(s stranger, b prover) { s.greet(alice, mallory, b) }, identity.ErrSignature},
		{"mirror of the proof", func(s stranger, _ prover) {
			s.say(hello(alice), binary)
			s.hear()
			s.say(s.hear().data, binary)
		}, identity.ErrSignature},
		{"mirror of everything", func(s stranger, _ prover) {
			s.say(s.hear().data, binary)
		}, nil},
		// fault: D1
		{"own chain", func(s stranger, _ prover) { s.say(hello(mallory), binary) }, nil},
		{"noise", func(s stranger, _ prover) { s.say([]byte("\x93\x01\xc4\xff"), binary) }, nil},
		// fault: D3
		{"a long hello", func(s stranger, _ prover) { s.say(make([]byte, maxHello+1), binary) }, nil},
		{"many certificates", func(s stranger, _ prover) {
			chain := alice.Peer().Chain()
			b, err := encodeHello(strangerNonce, append(append(chain, chain...), chain...))
			if err != nil {
				t.Error(err)
			}
			s.say(b, binary)
		}, nil},
		{"ok at once", func(s stranger, _ prover) { s.say([]byte(verdictOK), text) }, nil},
		{"end at once", func(s stranger, _ prover) { s.say([]byte(endMark), text) }, nil},
		{"a long proof", func(s stranger, _ prover) { s.say(hello(alice), binary); s.say(make([]byte, maxProof+1), binary) }, nil},
		{"hangs up", func(s stranger, _ prover) { s.say(hello(alice), binary); s.end() }, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, b := sides(alice, bob)
			x, y := newPipe()
			go func() {
				c.play(stranger{x, t}, b)
				x.awaitNo()
				x.end()
			}()
			peer, err := b.run(limit(t, patience), y, y.end)
			if err == nil || errors.Is(err, context.DeadlineExceeded) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("took %v: %v, want %v", peer, err, c.want)
			}
		})
	}
}

// A peer that proves itself, but sends a byte of the stream instead of its
// verdict, gets no stream.
func TestNoByteBeforeTheVerdict(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	_, b := sides(alice, bob)
	for _, c := range []struct {
		say     packet
		refused bool
	}{{packet{[]byte("x"), false}, false}, {packet{[]byte(verdictNo + "go away"), true}, true}} {
		x, y := newPipe()
		go func() {
			s := stranger{x, t}
			s.greet(alice, alice, b)
			s.say(c.say.data, messageKind(c.say.text))
			x.awaitNo()
			x.end()
		}()
		_, err := b.run(limit(t, patience), y, y.end)
		y.end()
		var said *RefusedError
		if err == nil || errors.As(err, &said) != c.refused {
			t.Errorf("after %q: %v", c.say.data, err)
		}
	}
}

// A peer that says nothing is given up when the context ends.
func TestProofEndsWithItsContext(t *testing.T) {
	_, b := sides(newIdentity(t, "alice"), newIdentity(t, "bob"))
	ctx, cancel := context.WithCancelCause(context.Background())
	x, y := newPipe()
	defer x.end()
	cause := fmt.Errorf("enough")
	go func() { stranger{x, t}.hear(); cancel(cause) }()
	if _, err := b.run(ctx, y, y.end); !errors.Is(err, cause) {
		t.Errorf("ended with %v", err)
	}
}

func FuzzHello(f *testing.F) {
	id, err := identity.Generate("alice")
	if err != nil {
		f.Fatal(err)
	}
	b, err := encodeHello([nonceLen]byte{1}, id.Peer().Chain())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x93, 1, 0xc4, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		nonce, chain, err := decodeHello(b)
		if err != nil {
			return
		}
		if len(chain) > identity.MaxChainLen {
			t.Fatalf("%d certificates", len(chain))
		}
		again, err := encodeHello(nonce, chain)
		if err != nil {
			t.Fatal(err)
		}
		if n, c, err := decodeHello(again); err != nil || n != nonce || len(c) != len(chain) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}
