package dht

import (
	"errors"
	"fmt"
	"time"

	"peerlink/identity"
)

// A signal is a signed statement (purpose "signal"):
//
//	[version uint, chain [bytes…] of the sender, to bytes(32), id bytes(16),
//	 time uint (Unix milliseconds), body bytes]
//
// sealed with HPKE to the recipient's key, under the info string
// "peerlink/signal/1" 0x00 to(32). Nodes see the recipient and the length;
// sender, id, time and body are inside. The signature covers all six elements,
// so a signal cannot be sealed again for somebody else (to), replayed later
// (time) or twice (id), nor be taken for another device's (chain).

// MaxMessageLen is the length in bytes of a message that Send takes. An offer
// with 32 candidates has about 5 KiB.
const MaxMessageLen = 16 << 10

// Bounds of a signal.
const (
	signalIDLen    = 16
	signalFields   = 6
	signalPurpose  = "signal"
	signalInfo     = "peerlink/signal/1\x00"
	signalOverhead = identity.MaxChainLen*(identity.MaxCertLen+3) + maxSignature + 256
	maxPlainLen    = MaxMessageLen + signalOverhead
	maxSealedLen   = maxPlainLen + identity.MaxSealedOverhead
	// freshness is how far a signal's time may be from the recipient's clock,
	// either way.
	freshness = 30 * time.Second
)

// errStale is matched when a signal's time is too far off.
var errStale = errors.New("stale")

// signal is a message from one device to another.
type signal struct {
	from identity.Peer // zero until verified
	to   identity.DeviceID
	id   [signalIDLen]byte
	at   time.Time
	body []byte

	chain [][]byte
	proof signed
}

// encodeSignal makes and signs the plaintext of a signal.
func encodeSignal(from *identity.Identity, to identity.DeviceID, id [signalIDLen]byte, at time.Time, body []byte) ([]byte, error) {
	if len(body) > MaxMessageLen {
		return nil, fmt.Errorf("the message has %d bytes, at most %d can be signalled", len(body), MaxMessageLen)
	}
	return sign(from, signalPurpose, wireVersion, from.Peer().Chain(), to[:], id[:], uint64(at.UnixMilli()), body)
}

// sealSignal encrypts a signal's plaintext for its recipient.
func sealSignal(to identity.DeviceID, sealingKey, plain []byte) ([]byte, error) {
	return identity.Seal(sealingKey, signalInfo+string(to[:]), plain)
}

// openSignal decrypts what sealSignal made for me.
func openSignal(me *identity.Identity, sealed []byte) ([]byte, error) {
	to := me.DeviceID()
	return me.Open(signalInfo+string(to[:]), sealed)
}

// parseSignal takes a plaintext apart without believing it.
func parseSignal(plain []byte) (s signal, err error) {
	if len(plain) > maxPlainLen {
		return s, fmt.Errorf("the signal has %d bytes, at most %d are taken", len(plain), maxPlainLen)
	}
	if s.proof, err = readSigned(plain, maxPlainLen); err != nil {
		return s, err
	}
	r, extra, err := s.proof.open(signalFields)
	if err != nil {
		return s, err
	}
	if s.chain, err = readChain(r); err != nil {
		return s, err
	}
	for _, f := range [][]byte{s.to[:], s.id[:]} {
		b, err := r.Bytes(len(f))
		if err != nil {
			return s, err
		}
		if copy(f, b) != len(f) {
			return s, fmt.Errorf("an id of %d bytes, want %d", len(b), len(f))
		}
	}
	ms, err := r.Uint(maxUnixMilli)
	if err != nil {
		return s, err
	}
	s.at = time.UnixMilli(int64(ms))
	if s.body, err = r.Bytes(MaxMessageLen); err != nil {
		return s, err
	}
	return s, end(r, extra)
}

// checkFresh refuses a signal from too long ago, or from the future.
func (s signal) checkFresh(now time.Time) error {
	if off := now.Sub(s.at); off > freshness || off < -freshness {
		return fmt.Errorf("%w: its time is %v off, at most %v are taken: one of the two clocks is wrong, or it is a replay",
			errStale, off.Round(time.Second), freshness)
	}
	return nil
}

// verify proves who sent the signal.
func (s *signal) verify(now time.Time) error {
	from, err := identity.VerifyChain(s.chain, now)
	if err != nil {
		return err
	}
	if err := from.Verify(signalPurpose, s.proof.statement, s.proof.signature); err != nil {
		return err
	}
	s.from = from
	return nil
}
