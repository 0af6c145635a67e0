package switchboard

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// A card is a device's signed statement, purpose "switchboard-card":
//
//	[version uint = 1, chain [bin, …], key bin 65, until uint, …]
//
// where key is an uncompressed P-256 point, and until, in Unix milliseconds, at
// most 25 hours ahead. A letter is a signed statement, purpose "switchboard":
//
//	[version uint = 1, chain [bin, …] of the sender, to bin 32, id bin 16,
//	 time uint (Unix milliseconds), body bin, …]
//
// sealed by HPKE (RFC 9180, base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM) to the key of the recipient's card, with the info
// "peerlink/switchboard/1" 0x00 to(32), and laid out as enc(65) ciphertext. A
// signed statement is the msgpack array [statement bin, signature bin].
const (
	// MaxMessageLen is the length in bytes of a message that Send takes.
	MaxMessageLen = 12 << 10

	version       = 1
	cardPurpose   = "switchboard-card"
	letterPurpose = "switchboard"
	joinPurpose   = "switchboard-join"
	sealInfo      = "peerlink/switchboard/1\x00"
	keyLen        = 65
	letterIDLen   = 16
	maxSignature  = 72
	maxChain      = identity.MaxChainLen*(identity.MaxCertLen+3) + 64
	maxCard       = maxChain + keyLen + maxSignature + 64
	maxPlain      = maxChain + MaxMessageLen + maxSignature + 256
	maxUnixMilli  = 1 << 48
	cardLife      = 24 * time.Hour
	maxSkew       = time.Hour
	// freshness is how far a letter's time may be from the recipient's clock.
	freshness = 30 * time.Second
)

type cardSum [sha256.Size]byte

// card is what a device shows on a line.
type card struct {
	peer identity.Peer
	key  []byte
	sum  cardSum
}

func kem() hpke.KEM { return hpke.DHKEM(ecdh.P256()) }

func sign(me *identity.Identity, purpose string, values ...any) ([]byte, error) {
	st, err := msgpack.Marshal(values)
	if err != nil {
		return nil, err
	}
	sig, err := me.Sign(purpose, st)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return msgpack.Marshal([]any{st, sig})
}

// signed is a signed statement that is not believed yet.
type signed struct {
	statement, signature []byte
	chain                [][]byte
	rest                 *packed.Fields // behind the chain
}

// open takes a signed statement of so many known elements apart. Reading the rest
// of them tells what is wrong.
func open(b []byte, most, known int) (s signed, err error) {
	if len(b) > most {
		return s, fmt.Errorf("%d bytes, at most %d are taken", len(b), most)
	}
	if s.statement, s.signature, err = packed.Signed(b, most, maxSignature); err != nil {
		return s, err
	}
	s.rest = packed.NewFields(s.statement, known)
	if v := s.rest.Uint(255); v != version {
		s.rest.Fail(fmt.Errorf("version %d, want %d", v, version))
	}
	s.chain = s.rest.Blobs(identity.MaxChainLen, identity.MaxCertLen)
	return s, nil
}

func (s signed) verify(purpose string, now time.Time) (identity.Peer, error) {
	peer, err := identity.VerifyChain(s.chain, now)
	if err == nil {
		err = peer.Verify(purpose, s.statement, s.signature)
	}
	return peer, err
}

func encodeCard(me *identity.Identity, key []byte, now time.Time) ([]byte, error) {
	return sign(me, cardPurpose, uint8(version), me.Peer().Chain(), key, uint64(now.Add(cardLife).UnixMilli()))
}

func decodeCard(b []byte, now time.Time) (c card, err error) {
	s, err := open(b, maxCard, 4)
	if err != nil {
		return c, fmt.Errorf("card: %w", err)
	}
	c.key = make([]byte, keyLen)
	s.rest.Exactly(c.key)
	until := s.rest.Uint(maxUnixMilli)
	if err := s.rest.End(); err != nil {
		return c, fmt.Errorf("card: %w", err)
	}
	if left := time.UnixMilli(int64(until)).Sub(now); left < 0 || left > cardLife+maxSkew {
		return c, fmt.Errorf("card: valid for %v, want 0 to %v: one of the two clocks is wrong", left.Round(time.Second), cardLife+maxSkew)
	}
	if c.peer, err = s.verify(cardPurpose, now); err != nil {
		return c, fmt.Errorf("card: %w", err)
	}
	c.sum = sha256.Sum256(b)
	return c, nil
}

type letter struct {
	from identity.Peer
	id   [letterIDLen]byte
	body []byte
}

// sealLetter makes what only the holder of the card's key can read.
func sealLetter(me *identity.Identity, to card, id [letterIDLen]byte, now time.Time, body []byte) ([]byte, error) {
	if len(body) > MaxMessageLen {
		return nil, fmt.Errorf("the message has %d bytes, at most %d can be sent", len(body), MaxMessageLen)
	}
	plain, err := sign(me, letterPurpose, uint8(version), me.Peer().Chain(), to.peer.Device[:], id[:], uint64(now.UnixMilli()), body)
	if err != nil {
		return nil, err
	}
	pk, err := kem().NewPublicKey(to.key)
	if err != nil {
		return nil, fmt.Errorf("the device's key: %w", err)
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), info(to.peer.Device), plain)
}

func info(to identity.DeviceID) []byte { return append([]byte(sealInfo), to[:]...) }

// openLetter reads what sealLetter made for me, and tells who sent it.
func openLetter(me identity.DeviceID, key hpke.PrivateKey, sealed []byte, now time.Time) (letter, error) {
	if len(sealed) > maxSealed {
		return letter{}, fmt.Errorf("letter of %d bytes, at most %d are taken", len(sealed), maxSealed)
	}
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info(me), sealed)
	if err != nil {
		return letter{}, fmt.Errorf("letter: %w", err)
	}
	l, err := decodeLetter(me, plain, now)
	if err != nil {
		return letter{}, fmt.Errorf("letter: %w", err)
	}
	return l, nil
}

func decodeLetter(me identity.DeviceID, plain []byte, now time.Time) (l letter, err error) {
	s, err := open(plain, maxPlain, 6)
	if err != nil {
		return l, err
	}
	var to identity.DeviceID
	s.rest.Exactly(to[:])
	s.rest.Exactly(l.id[:])
	at := s.rest.Uint(maxUnixMilli)
	l.body = s.rest.Bytes(MaxMessageLen)
	err = s.rest.End()
	switch off := now.Sub(time.UnixMilli(int64(at))); {
	case err != nil:
		return l, err
	case to != me:
		return l, errors.New("it is for another device")
	case off > freshness || off < -freshness:
		return l, fmt.Errorf("its time is %v off, at most %v are taken: one of the two clocks is wrong, or it is a replay", off.Round(time.Second), freshness)
	}
	l.from, err = s.verify(letterPurpose, now)
	return l, err
}
