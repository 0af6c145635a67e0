package dht

import (
	"bytes"
	"testing"
	"time"

	"peerlink/identity"
)

func TestSignalIsOpenedByItsRecipientAlone(t *testing.T) {
	alice, bob, eve := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "eve")
	now := time.Now()
	sealed := sealedFor(t, alice, bob.DeviceID(), bob.SealingKey(), 1, now)
	plain, err := openSignal(bob, sealed)
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSignal(plain)
	if err == nil {
		err = s.verify(now)
	}
	if err != nil || s.from.Device != alice.DeviceID() || s.to != bob.DeviceID() || !bytes.Equal(s.body, []byte{1}) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := openSignal(eve, sealed); err == nil {
		t.Error("somebody else opened it")
	}
	// Sealed to Bob's key but in Eve's name: the info string binds both.
	crossed, err := sealSignal(eve.DeviceID(), bob.SealingKey(), plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSignal(bob, crossed); err == nil {
		t.Error("opened though it was sealed in another's name")
	}
	for _, id := range []*identity.Identity{alice, bob} {
		if bytes.Contains(sealed, id.Peer().Chain()[0][:64]) {
			t.Errorf("the sealed signal shows %s's certificate", id.Name())
		}
	}
}

func TestMessageBeyondItsLimitIsNotSigned(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	for n, ok := range map[int]bool{0: true, MaxMessageLen: true, MaxMessageLen + 1: false} {
		plain, err := encodeSignal(alice, bob.DeviceID(), [signalIDLen]byte{}, time.Now(), 0, make([]byte, n), nil)
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
		if ok && len(plain) > maxPlainLen {
			t.Errorf("%d bytes became %d, more than the %d that are taken", n, len(plain), maxPlainLen)
		}
		if s, err := parseSignal(plain); ok && (err != nil || len(s.body) != n) {
			t.Errorf("%d bytes came back as %d, %v", n, len(s.body), err)
		}
	}
}

func TestFreshnessIsThirtySecondsEitherWay(t *testing.T) {
	now := time.Now()
	for off, ok := range map[time.Duration]bool{
		0: true, freshness: true, -freshness: true, freshness + time.Millisecond: false, -freshness - time.Millisecond: false, 100 * 365 * 24 * time.Hour: false,
	} {
		if err := (signal{at: now.Add(off)}).checkFresh(now); (err == nil) != ok {
			t.Errorf("%v off: %v", off, err)
		}
	}
}

func FuzzSignal(f *testing.F) {
	alice, bob := fixedIdentity(f, "alice"), fixedIdentity(f, "bob")
	plain, err := encodeSignal(alice, bob.DeviceID(), [signalIDLen]byte{1}, time.Now(), 0, []byte("body"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{0x92, 0xc6, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x92, 0xc4, 3, 0x96, 1, 0x90, 0xc4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSignal(b)
		if err != nil {
			return
		}
		if len(s.body) > MaxMessageLen || len(s.chain) > identity.MaxChainLen {
			t.Fatalf("beyond its bounds: %+v", s)
		}
		if s.verify(time.Now()) == nil && !bytes.Equal(s.body, []byte("body")) {
			t.Fatal("a body that nobody signed was believed")
		}
	})
}
