package ice

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// QUIC asks once into a silence, and then ever more seldom, and not at all while
// its congestion window is full of bytes that were lost. So a connection's path is
// asked beside it, from the same socket, by packets of 36 bytes that QUIC does not
// read:
//
//	0x00 | 'q' question or 'a' answer | "PL" | tag [8] | nonce [8] | mac [16]
//
// The tag and the key of the mac are 40 bytes that both ends take from the TLS
// handshake (label pulseLabel); the mac is HMAC-SHA256(key, kind | role of the
// sender | nonce), cut: role is 'c' for who has dialled and 'd' for the other. An
// answer repeats the nonce of the question. Whoever does not know the connection,
// or the key, hears nothing.
const (
	pulseMagic    = "PL"
	pulseQuestion = 'q'
	pulseAnswer   = 'a'
	pulseLen      = 2 + len(pulseMagic) + 8 + 8 + 16
	pulseLabel    = "EXPORTER-peerlink-pulse"

	// pulseLook is between two looks at a connection that is heard.
	pulseLook = 200 * time.Millisecond
	// pulseStall is how late a look may be before this process, or the machine, is
	// taken to have slept meanwhile: what was not read then was not silence.
	pulseStall = time.Second
)

// pulse decides, from how many packets have come, whether a path is alive. Its
// zero value has heard nothing yet.
type pulse struct {
	packets uint64
	heard   time.Time // when anything came, at the latest
	due     time.Time // of the next look
}

// look takes how many packets have come by now, and the shortest round trip. It
// says whether the path is lost, or is to be asked, and when to look again.
func (p *pulse) look(now time.Time, packets uint64, rtt time.Duration) (lost, ask bool, in time.Duration) {
	if packets != p.packets || p.heard.IsZero() || now.Sub(p.due) > pulseStall {
		p.packets, p.heard = packets, now
	}
	silence, limit := now.Sub(p.heard), silenceOver(rtt)
	switch {
	case silence >= limit:
		return true, false, 0
	case silence >= quicKeepAlive+pulseLook+min(rtt, maxAnswer): // the keep-alive was not answered
		ask, in = true, min(probeEvery, limit-silence)
	default:
		in = pulseLook
	}
	p.due = now.Add(in)
	return false, ask, in
}

// watch looks at a connection's pulse for as long as it lives.
type watch struct {
	e    *udpEngine
	at   *base
	conn *quic.Conn
	role role
	tag  [8]byte
	key  [32]byte
	lost func(silence time.Duration) // called once, if it is

	mu    sync.Mutex
	pulse pulse
	nonce [8]byte // of the questions; new after each answer
	clock *time.Timer
	ended bool
}

// watch begins to look at a connection, on which both sides are proven.
func (b *base) watch(conn *quic.Conn, r role, lost func(time.Duration)) {
	w := &watch{e: b.e, at: b, conn: conn, role: r, lost: lost}
	tls := conn.ConnectionState().TLS
	secret, err := tls.ExportKeyingMaterial(pulseLabel, nil, len(w.tag)+len(w.key))
	if err != nil {
		return // of TLS before 1.3, which is not spoken here
	}
	copy(w.tag[:], secret)
	copy(w.key[:], secret[len(w.tag):])
	_, _ = rand.Read(w.nonce[:]) // never fails
	b.e.watches.Store(w.tag, w)
	w.mu.Lock()
	w.clock = time.AfterFunc(pulseLook, w.look)
	w.pulse.due = time.Now().Add(pulseLook)
	w.mu.Unlock()
	context.AfterFunc(conn.Context(), w.end)
}

func (w *watch) end() {
	w.e.watches.CompareAndDelete(w.tag, w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.clock.Stop()
}

func (w *watch) look() {
	stats := w.conn.ConnectionStats()
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	now := time.Now()
	lost, ask, in := w.pulse.look(now, stats.PacketsReceived, stats.MinRTT)
	silence, nonce := now.Sub(w.pulse.heard), w.nonce
	if !lost {
		w.clock.Reset(in)
	}
	w.mu.Unlock()
	switch {
	case lost:
		w.lost(silence)
	case ask:
		// A packet that cannot be sent is one that is lost.
		_, _ = w.at.quic.WriteTo(w.packet(pulseQuestion, w.role, nonce), w.conn.RemoteAddr())
	}
}

func (w *watch) packet(kind byte, from role, nonce [8]byte) []byte {
	b := append(make([]byte, 0, pulseLen), 0, kind)
	b = append(b, pulseMagic...)
	b = append(b, w.tag[:]...)
	b = append(b, nonce[:]...)
	mac := hmac.New(sha256.New, w.key[:])
	mac.Write([]byte{kind, byte(from)})
	mac.Write(nonce[:])
	return mac.Sum(b)[:pulseLen]
}

// take reads a packet that came from an address. It returns the answer to it, if
// there is to be one.
func (w *watch) take(b []byte) (answer []byte) {
	kind, nonce := b[1], [8]byte(b[12:20])
	if !hmac.Equal(b, w.packet(kind, w.role.other(), nonce)) {
		return nil
	}
	if kind == pulseQuestion {
		return w.packet(pulseAnswer, w.role, nonce)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if nonce == w.nonce {
		w.pulse.heard = time.Now()
		_, _ = rand.Read(w.nonce[:]) // never fails
	}
	return nil
}

// isPulse tells such a packet from others that are not QUIC.
func isPulse(b []byte) bool {
	return len(b) == pulseLen && b[0] == 0 && (b[1] == pulseQuestion || b[1] == pulseAnswer) && string(b[2:4]) == pulseMagic
}

// pulseFrom takes a question or an answer.
func (b *base) pulseFrom(p []byte, from net.Addr) {
	w, known := b.e.watches.Load([8]byte(p[4:12]))
	if !known {
		return
	}
	if answer := w.(*watch).take(p); answer != nil {
		_, _ = b.quic.WriteTo(answer, from) // it may be lost, as any packet
	}
}
