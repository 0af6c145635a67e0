package dht

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// mustRecord makes a record that is valid for an hour from at.
func mustRecord(t testing.TB, id *identity.Identity, seq uint64, at time.Time) []byte {
	t.Helper()
	b, err := encodeRecord(id, seq, at, at.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordSurvivesTheRoundTrip(t *testing.T) {
	id, now := newIdentity(t, "alice"), time.Now()
	rec, err := decodeRecord(mustRecord(t, id, 42, now), id.DeviceID(), now)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Peer.Device != id.DeviceID() || rec.Peer.Account != id.AccountID() || rec.Seq != 42 ||
		!bytes.Equal(rec.SealingKey, id.SealingKey()) || rec.Published.UnixMilli() != now.UnixMilli() || rec.Expires.Sub(rec.Published) != time.Hour {
		t.Errorf("%+v", rec)
	}
}

// Appended elements are covered by the
// signature and skipped.
func TestRecordWithAppendedElementsIsTaken(t *testing.T) {
	id, now := newIdentity(t, "alice"), time.Now()
	b, err := sign(id, recordPurpose, wireVersion, id.Peer().Chain(), id.SealingKey(), uint64(1),
		uint64(now.UnixMilli()), uint64(now.Add(time.Hour).UnixMilli()), "something", []int{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRecord(b, id.DeviceID(), now); err != nil {
		t.Error(err)
	}
}

// fault: A1, A2, A3, E4, E9
func TestRecordIsRefused(t *testing.T) {
	id, eve, now := newIdentity(t, "alice"), newIdentity(t, "eve"), time.Now()
	good := mustRecord(t, id, 1, now)
	ms := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixMilli()) }
	forge := func(signer *identity.Identity, purpose string, values ...any) []byte {
		b, err := sign(signer, purpose, values...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	chain, key := id.Peer().Chain(), id.SealingKey()
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	cases := map[string][]byte{
		"empty":            nil,
		"not msgpack":      []byte("garbage garbage garbage"),
		"4 GiB announced":  {0x92, 0xc6, 0xff, 0xff, 0xff, 0xff},
		"too long":         append(bytes.Clone(good), make([]byte, maxRecordLen)...),
		"trailing byte":    append(bytes.Clone(good), 0),
		"flipped bit":      flipped,
		"another's":        mustRecord(t, eve, 1, now),
		"other signer":     forge(eve, recordPurpose, wireVersion, chain, key, 1, ms(0), ms(time.Hour)),
		"other purpose":    forge(id, signalPurpose, wireVersion, chain, key, 1, ms(0), ms(time.Hour)),
		"other version":    forge(id, recordPurpose, 2, chain, key, 1, ms(0), ms(time.Hour)),
		"expired":          forge(id, recordPurpose, wireVersion, chain, key, 1, ms(-2*time.Hour), ms(-time.Hour)),
		"from the future":  forge(id, recordPurpose, wireVersion, chain, key, 1, ms(time.Hour), ms(2*time.Hour)),
		"lives for ever":   forge(id, recordPurpose, wireVersion, chain, key, 1, ms(0), ms(48*time.Hour)),
		"lives backwards":  forge(id, recordPurpose, wireVersion, chain, key, 1, ms(0), ms(-time.Second)),
		"no chain":         forge(id, recordPurpose, wireVersion, [][]byte{}, key, 1, ms(0), ms(time.Hour)),
		"chain of 4":       forge(id, recordPurpose, wireVersion, [][]byte{chain[0], chain[1], chain[1], chain[1]}, key, 1, ms(0), ms(time.Hour)),
		"long sealing key": forge(id, recordPurpose, wireVersion, chain, make([]byte, maxSealingKey+1), 1, ms(0), ms(time.Hour)),
		"too few elements": forge(id, recordPurpose, wireVersion, chain, key),
		"too many":         forge(id, recordPurpose, append([]any{wireVersion, chain, key, 1, ms(0), ms(time.Hour)}, make([]any, packed.MaxMore+1)...)...),
		"wrong types":      forge(id, recordPurpose, wireVersion, "chain", key, 1, ms(0), ms(time.Hour)),
	}
	for name, b := range cases {
		if rec, err := decodeRecord(b, id.DeviceID(), now); err == nil {
			t.Errorf("%s: taken as %+v", name, rec)
		}
		if err := recordValidator.Validate(recordKey(id.DeviceID()), b); err == nil {
			t.Errorf("%s: validated", name)
		}
	}
	for i := range good {
		if _, err := decodeRecord(good[:i], id.DeviceID(), now); !errors.Is(err, packed.ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestRecordBelongsUnderItsOwnKeyOnly(t *testing.T) {
	id := newIdentity(t, "alice")
	b := mustRecord(t, id, 1, time.Now())
	if err := recordValidator.Validate(recordKey(id.DeviceID()), b); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"", "/peerlink/", "/other/" + id.DeviceID().String(), recordKey(newIdentity(t, "eve").DeviceID()),
		"/peerlink/" + strings.ToUpper(id.DeviceID().String()), recordKey(id.DeviceID()) + "/",
	} {
		if err := recordValidator.Validate(key, b); err == nil {
			t.Errorf("taken under %q", key)
		}
	}
}

// fault: E9
func TestSelectTakesTheHighestSequenceNumber(t *testing.T) {
	id, now := newIdentity(t, "alice"), time.Now()
	at := func(seq uint64) []byte { return mustRecord(t, id, seq, now) }
	for name, c := range map[string]struct {
		values [][]byte
		want   int
	}{
		"newest last":       {[][]byte{at(1), at(2), at(3)}, 2},
		"newest first":      {[][]byte{at(3), at(2), at(1)}, 0},
		"first among equal": {[][]byte{at(2), at(2)}, 0},
		"garbage loses":     {[][]byte{[]byte("garbage"), at(1)}, 1},
		"zero is a number":  {[][]byte{[]byte("garbage"), at(0)}, 1},
	} {
		if got, err := recordValidator.Select("", c.values); err != nil || got != c.want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, c.want)
		}
	}
	if _, err := recordValidator.Select("", [][]byte{[]byte("garbage")}); err == nil {
		t.Error("garbage alone was selected")
	}
}

func FuzzRecord(f *testing.F) {
	id := fixedIdentity(f, "alice")
	now := time.Now()
	f.Add(mustRecord(f, id, 1, now))
	f.Add([]byte{0x92, 0xc6, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x92, 0xc4, 2, 0x96, 1, 0xc0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, chain, s, err := parseRecord(b)
		if err != nil {
			return
		}
		if len(chain) > identity.MaxChainLen || len(rec.SealingKey) > maxSealingKey || len(s.signature) > maxSignature || rec.Seq > maxSequence {
			t.Fatalf("beyond its bounds: %+v", rec)
		}
		if _, err := decodeRecord(b, id.DeviceID(), now); err == nil && rec.Seq != 1 {
			t.Fatal("a record that nobody signed was taken")
		}
	})
}
