package ice

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"
)

// What a pulse does at each look.
// fault: F2
func TestAPulseAsksIntoASilenceAndThenGivesUp(t *testing.T) {
	var p pulse
	start := time.Unix(1000, 0)
	var asked, gaveUp time.Duration
	asks := 0
	for now, packets := time.Duration(0), uint64(0); gaveUp == 0; {
		if now <= 3*time.Second { // then nothing comes any more
			packets++
		}
		lost, ask, in := p.look(start.Add(now), packets, 20*time.Millisecond)
		switch {
		case lost:
			gaveUp = now
		case ask && asks == 0:
			asked, asks = now, 1
		case ask:
			asks++
		}
		now += in
	}
	if asked < 3500*time.Millisecond || asked > 4*time.Second {
		t.Errorf("asks first at %v", asked)
	}
	if gaveUp < 3*time.Second+silenceLimit || gaveUp > 3*time.Second+silenceLimit+pulseLook+20*time.Millisecond {
		t.Errorf("gives up at %v", gaveUp)
	}
	if asks < 9 {
		t.Errorf("asked %d times", asks)
	}
}

// An idle path on which every fifth packet is lost, each way, is not given up in
// an hour, even if none of QUIC's own packets came through.
// fault: F2, F4
func TestAPulseBearsALossyPath(t *testing.T) {
	var p pulse
	chance := rand.New(rand.NewPCG(1, 2))
	for now := time.Unix(1000, 0); now.Before(time.Unix(1000+3600, 0)); {
		lost, ask, in := p.look(now, 1, 20*time.Millisecond)
		if lost {
			t.Fatalf("given up after %v", now.Sub(time.Unix(1000, 0)))
		}
		if ask && chance.Float64() > 0.2 && chance.Float64() > 0.2 {
			p.heard = now.Add(20 * time.Millisecond)
		}
		now = now.Add(in)
	}
}

// What was not read while the process slept was not silence; what is not heard
// from then on is.
// fault: F2
func TestAPulseForgivesTheTimeThatTheProcessSlept(t *testing.T) {
	var p pulse
	now := time.Unix(1000, 0)
	_, _, in := p.look(now, 1, 0)
	now = now.Add(in + time.Hour)
	woke := now
	for {
		lost, _, in := p.look(now, 1, 0)
		if lost {
			break
		}
		now = now.Add(in)
	}
	if d := now.Sub(woke); d < silenceLimit || d > silenceLimit+pulseLook {
		t.Errorf("given up %v after it woke", d)
	}
}

// pulsing makes two devices with a stream over QUIC, and returns the watches of
// both ends of it.
func pulsing(t *testing.T) (wa, wb *watch) {
	t.Helper()
	x := newExchange()
	a, b := x.newDevice(t, "a", engines(engineUDP)), x.newDevice(t, "b", engines(engineUDP))
	connect(t, a, b)
	one := func(d *device) *watch {
		var all []*watch
		for _, w := range d.engines[0].(*udpEngine).watches.Range {
			all = append(all, w.(*watch))
		}
		if len(all) != 1 {
			t.Fatalf("%d watches", len(all))
		}
		return all[0]
	}
	return one(a), one(b)
}

// A question is answered over the sockets, and the answer is a sign of life. A
// connection that has ended is not watched any more.
// fault: F2
func TestAQuestionIsAnsweredBesideQUIC(t *testing.T) {
	wa, wb := pulsing(t)
	if wa.tag != wb.tag || wa.key != wb.key || wa.role == wb.role {
		t.Fatal("the two ends do not have the same secrets, or the same role")
	}
	for _, w := range []*watch{wa, wb} {
		w.mu.Lock()
		asked := w.nonce
		w.mu.Unlock()
		if _, err := w.at.quic.WriteTo(w.packet(pulseQuestion, w.role, asked), w.conn.RemoteAddr()); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.nonce != asked
		})
	}
	_ = wa.conn.CloseWithError(codeDone, "")
	for _, w := range []*watch{wa, wb} {
		waitFor(t, func() bool {
			_, watched := w.e.watches.Load(w.tag)
			return !watched
		})
	}
}

// Packets of somebody who does not have the key are neither answered nor a sign
// of life, nor is one's own question that comes back.
// fault: E2, F3
func TestOnlyThePeerIsAnsweredAndHeard(t *testing.T) {
	wa, wb := pulsing(t)
	wa.end() // so that it asks nothing of its own
	wa.mu.Lock()
	asked := wa.nonce
	wa.mu.Unlock()
	question := wa.packet(pulseQuestion, wa.role, asked)
	forged := wb.packet(pulseAnswer, wb.role, asked)
	forged[len(forged)-1] ^= 1
	for name, b := range map[string][]byte{
		"a forged answer":           forged,
		"its own question":          question,
		"its question as an answer": append([]byte{0, pulseAnswer}, question[2:]...),
		"an answer to nothing":      wb.packet(pulseAnswer, wb.role, [8]byte{7}),
	} {
		if !isPulse(b) {
			t.Fatalf("%s is no such packet", name)
		}
		if answer := wa.take(b); answer != nil {
			t.Errorf("%s is answered", name)
		}
		wa.mu.Lock()
		if wa.nonce != asked {
			t.Errorf("%s is a sign of life", name)
		}
		wa.mu.Unlock()
	}
	if answer := wb.take(question); !bytes.Equal(answer, wb.packet(pulseAnswer, wb.role, asked)) {
		t.Errorf("the question is answered by %x", answer)
	}
}

// The layout that docs/protocol.md gives.
func TestPulsePacketsAreThoseOfTheProtocol(t *testing.T) {
	w := &watch{role: controlling}
	copy(w.tag[:], "\x01\x02\x03\x04\x05\x06\x07\x08")
	for i := range w.key {
		w.key[i] = byte(i)
	}
	nonce := [8]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7}
	if got := hex.EncodeToString(w.packet(pulseQuestion, w.role, nonce)); got != goldenQuestion {
		t.Errorf("%s, want %s", got, goldenQuestion)
	}
}

const goldenQuestion = "0071504c" + "0102030405060708" + "a0a1a2a3a4a5a6a7" + "f9db18a6b1edaedd0ce54cbeb28d59b3"

func FuzzPulse(f *testing.F) {
	w := &watch{role: controlling, key: [32]byte{1}, tag: [8]byte{2}}
	peer := &watch{role: controlled, key: w.key, tag: w.tag}
	f.Add(peer.packet(pulseQuestion, controlled, [8]byte{3}))
	f.Add(peer.packet(pulseAnswer, controlled, [8]byte{}))
	f.Add([]byte{0, pulseAnswer, 'P', 'L'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if !isPulse(b) {
			return
		}
		answer := w.take(b)
		if genuine := bytes.Equal(b, peer.packet(pulseQuestion, controlled, [8]byte(b[12:20]))); genuine != (answer != nil) {
			t.Errorf("%x is answered by %x", b, answer)
		}
	})
}
