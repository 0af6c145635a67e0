package dht

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"peerlink/identity"
)

// A signal is a signed statement, sealed to its recipient: see docs/protocol.md,
// "Signals". The signature covers all elements, so a signal cannot be sealed again
// for another device (to), replayed later (time) or twice (id), nor be taken for
// another device's (chain). One with a life is a letter.
//
//	[version, chain [bytes…], to bytes(32), id bytes(16), time ms, body bytes, (life ms, (sealing key bytes))]

// MaxMessageLen is the length in bytes of a message that Send takes. An offer
// with 32 candidates has about 5 KiB.
const MaxMessageLen = 16 << 10

// Bounds of a signal.
const (
	signalIDLen    = 16
	signalFields   = 6
	signalPurpose  = "signal"
	signalInfo     = "peerlink/signal/1\x00"
	signalOverhead = identity.MaxChainLen*(identity.MaxCertLen+3) + maxSignature + maxSealingKey + 256
	maxPlainLen    = MaxMessageLen + signalOverhead
	maxSealedLen   = maxPlainLen + identity.MaxSealedOverhead
	// freshness is how far a signal's time may be from the recipient's clock,
	// either way, and how much longer than its life a letter is taken.
	freshness = 30 * time.Second
	// MaxLetterLife is how long a letter may wait for its recipient.
	MaxLetterLife = 10 * time.Minute
)

// errStale is matched when a signal's time is too far off.
var errStale = errors.New("stale")

type signal struct {
	from identity.Peer // zero until verified
	to   identity.DeviceID
	id   [signalIDLen]byte
	at   time.Time
	life time.Duration // 0: no letter
	body []byte
	key  []byte // of the sender; nil: not told

	chain [][]byte
	proof signed
}

// encodeSignal makes and signs the plaintext of a signal, or with a life of a
// letter. key is told to the recipient unless it is empty.
func encodeSignal(from *identity.Identity, to identity.DeviceID, id [signalIDLen]byte, at time.Time, life time.Duration, body, key []byte) ([]byte, error) {
	if len(body) > MaxMessageLen {
		return nil, fmt.Errorf("the message has %d bytes, at most %d can be signalled", len(body), MaxMessageLen)
	}
	values := []any{wireVersion, from.Peer().Chain(), to[:], id[:], uint64(at.UnixMilli()), body}
	if life > 0 || len(key) > 0 {
		values = append(values, uint64(life.Milliseconds()))
	}
	if len(key) > 0 {
		values = append(values, key)
	}
	return sign(from, signalPurpose, values...)
}

func sealSignal(to identity.DeviceID, sealingKey, plain []byte) ([]byte, error) {
	return identity.Seal(sealingKey, signalInfo+string(to[:]), plain)
}

func openSignal(me *identity.Identity, sealed []byte) ([]byte, error) {
	to := me.DeviceID()
	return me.Open(signalInfo+string(to[:]), sealed)
}

// parseSignal takes a plaintext apart without believing it.
func parseSignal(plain []byte) (s signal, err error) {
	proof, f, err := readSigned("signal", plain, maxPlainLen, signalFields)
	if err != nil {
		return s, err
	}
	s.proof = proof
	s.chain = readChain(f)
	f.Exactly(s.to[:])
	f.Exactly(s.id[:])
	s.at = readTime(f)
	s.body = f.Bytes(MaxMessageLen)
	if f.More() {
		s.life = time.Duration(f.Uint(uint64(MaxLetterLife.Milliseconds()))) * time.Millisecond
	}
	if f.More() {
		s.key = f.Bytes(maxSealingKey)
	}
	return s, f.End()
}

func (s signal) checkFresh(now time.Time) error {
	if off := now.Sub(s.at); off > freshness+s.life || off < -freshness {
		return fmt.Errorf("%w: its time is %v off, at most %v are taken: one of the two clocks is wrong, or it is a replay",
			errStale, off.Round(time.Second), freshness+s.life)
	}
	return nil
}

// claimed is the peer of whom the signal says to be: nothing is proven.
func (s *signal) claimed() (p identity.Peer) {
	ids := make([][sha256.Size]byte, identity.MaxChainLen)
	for i, der := range s.chain {
		c, err := x509.ParseCertificate(der)
		if err != nil || i == len(ids) {
			return identity.Peer{}
		}
		ids[i] = sha256.Sum256(c.RawSubjectPublicKeyInfo)
	}
	return identity.Peer{Device: ids[0], Account: ids[1], CA: ids[2]}
}

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
