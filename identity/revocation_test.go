package identity

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// revoke makes a list that must come about.
func revoke(t testing.TB, issuer crypto.Signer, number uint64, who ...Subject) *RevocationList {
	t.Helper()
	l, err := NewRevocationList(issuer, number, who...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func raw(l *RevocationList) []byte {
	b, _ := l.MarshalBinary()
	return b
}

func someDevice(n byte) DeviceID { return DeviceID{0: n, 31: 1} }

func TestRevocationListSaysWhoIsRevoked(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"Ed25519": newEd25519(t), "P-256": newP256(t)} {
		t.Run(name, func(t *testing.T) {
			account, err := New("a", key)
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now().Add(-time.Millisecond)
			l := revoke(t, key, 7, someDevice(2), someDevice(1), AccountID{9}, someDevice(2))
			if l.Issuer() != account.AccountID() || l.Number() != 7 || l.Issued().Before(before) {
				t.Errorf("%v, issued %v", l, l.Issued())
			}
			if want := []Subject{AccountID{9}, someDevice(1), someDevice(2)}; !slices.Equal(l.Revoked(), want) {
				t.Errorf("revoked %v, want %v", l.Revoked(), want)
			}
			if !l.Revokes(someDevice(1)) || l.Revokes(someDevice(3)) || l.Revokes(DeviceID{9}) {
				t.Error("it names others than were asked for")
			}
			text, err := l.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range [][]byte{raw(l), text, append([]byte("\r\n\n"), text...)} {
				again, err := ParseRevocationList(b)
				if err != nil || again.Digest() != l.Digest() {
					t.Errorf("read again: %v, %v", again, err)
				}
			}
		})
	}
}

func TestOnlyTheAccountsKeyRevokes(t *testing.T) {
	if _, err := deviceOnly(t).RevocationList(1, someDevice(1)); err == nil {
		t.Error("a device without its account's key made a list")
	}
	id := generate(t, "alice")
	l, err := id.RevocationList(1, someDevice(1))
	if err != nil || l.Issuer() != id.AccountID() {
		t.Errorf("%v, %v", l, err)
	}
	many := make([]Subject, MaxRevoked+1)
	for i := range many {
		many[i] = DeviceID{byte(i), byte(i >> 8), 1}
	}
	if _, err := id.RevocationList(1, many...); err == nil {
		t.Error("a list past its bound was made")
	}
	if l, err := id.RevocationList(MaxRevocationNumber, many[1:]...); err != nil || len(raw(l)) > revocationLists.maxLen() {
		t.Errorf("the longest list: %v", err)
	}
	if _, err := id.RevocationList(MaxRevocationNumber + 1); err == nil {
		t.Error("a number past its bound was taken")
	}
}

// fault: D6
func TestDamagedRevocationListsAreRefused(t *testing.T) {
	key := newEd25519(t)
	good := raw(revoke(t, key, 1, someDevice(1), someDevice(2)))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := ParseRevocationList(bad); !errors.Is(err, ErrRevocations) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := ParseRevocationList(good[:i]); !errors.Is(err, ErrRevocations) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	keyLen := int(binary.BigEndian.Uint16(good[4:]))
	ids := len(revocationLists.magic) + 2 + keyLen + 8 + 8 + 2
	signed := func(edit func(b []byte) []byte) []byte { // by the right key, but malformed
		b := edit(bytes.Clone(good[:len(good)-1-64]))
		sig, err := sign(key, revocationLists.purpose, b)
		if err != nil {
			t.Fatal(err)
		}
		return append(append(b, byte(len(sig))), sig...)
	}
	for what, b := range map[string][]byte{
		"nothing":         nil,
		"bytes follow":    append(bytes.Clone(good), 0),
		"PEM of a key":    []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"endless PEM":     append([]byte("-----BEGIN PEERLINK REVOCATIONS-----\n"), make([]byte, 2*revocationLists.maxLen())...),
		"endless":         append(bytes.Clone(good), make([]byte, revocationLists.maxLen())...),
		"count past ids":  signed(func(b []byte) []byte { binary.BigEndian.PutUint16(b[ids-2:], MaxRevoked); return b }),
		"count past most": signed(func(b []byte) []byte { binary.BigEndian.PutUint16(b[ids-2:], 0xffff); return b }),
		"twice the same":  signed(func(b []byte) []byte { copy(b[ids+revokedLen:], b[ids:ids+revokedLen]); return b }),
		"out of order":    signed(func(b []byte) []byte { b[ids+1] = 0xff; return b }),
		"unknown kind":    signed(func(b []byte) []byte { b[ids] = 'x'; return b }),
		"key too long":    signed(func(b []byte) []byte { binary.BigEndian.PutUint16(b[4:], 0xffff); return b }),
		"another's signature": func() []byte {
			b := bytes.Clone(good[:len(good)-64])
			sig, _ := sign(newEd25519(t), revocationLists.purpose, b[:len(b)-1])
			return append(b, sig...)
		}(),
		"signed for another purpose": func() []byte {
			b := bytes.Clone(good[:len(good)-64])
			sig, _ := sign(key, "record", b[:len(b)-1])
			return append(b, sig...)
		}(),
	} {
		if l, err := ParseRevocationList(b); !errors.Is(err, ErrRevocations) {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

// fault: D6
func TestS82_RevocationListsAsTold(t *testing.T) {
	key, other := newEd25519(t), newEd25519(t)
	var tr Trust
	add := func(l *RevocationList, changes bool) {
		t.Helper()
		changed := tr.Changed()
		if err := tr.AddRevocations(l); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			if !changes {
				t.Error("a list that is held already is told as a change")
			}
		default:
			if changes {
				t.Error("a change is not told")
			}
		}
	}
	first := revoke(t, key, 5, someDevice(1))
	add(first, true)
	add(first, false)
	if n := len(tr.Revocations()); n != 1 {
		t.Errorf("%d lists after the same one twice", n)
	}
	twin := revoke(t, key, 5, someDevice(2)) // of another device of the account
	add(twin, true)
	add(revoke(t, other, 1, someDevice(3)), true)
	if n := len(tr.Revocations()); n != 3 {
		t.Errorf("%d lists, want both of one number and the other issuer's", n)
	}
	if err := tr.AddRevocations(revoke(t, key, 4)); !errors.Is(err, ErrOutdated) {
		t.Errorf("rolled back: %v", err)
	}
	newest := revoke(t, key, 6, someDevice(1), someDevice(2))
	add(newest, true)
	for _, old := range []*RevocationList{first, twin} {
		if err := tr.AddRevocations(old); !errors.Is(err, ErrOutdated) {
			t.Errorf("an older one: %v", err)
		}
	}
	if n := len(tr.Revocations()); n != 2 {
		t.Errorf("%d lists, want the newest of each issuer", n)
	}
}

// fault: D5
func TestRevocationFollowsTheChain(t *testing.T) {
	f := newFamily(t)
	p, err := VerifyChain(ders(f.device, f.account, f.ca), certNow)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newEd25519(t)
	for _, tt := range []struct {
		name    string
		issuer  crypto.Signer
		who     Subject
		refused bool
	}{
		{"the account revokes its device", f.account.key, p.Device, true},
		{"the account revokes another device", f.account.key, someDevice(1), false},
		{"the authority revokes the account", f.ca.key, p.Account, true},
		{"the authority revokes the device", f.ca.key, p.Device, true},
		{"the account revokes itself", f.account.key, p.Account, false},
		{"a stranger revokes the device", stranger, p.Device, false},
		{"the device revokes itself", f.device.key, p.Device, false},
		{"the device's id as an account", f.account.key, AccountID(p.Device), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tr Trust
			if err := tr.Set(p.Device, Allowed); err != nil { // a revocation counts all the same
				t.Fatal(err)
			}
			l := revoke(t, tt.issuer, 1, tt.who)
			if err := tr.AddRevocations(l); err != nil {
				t.Fatal(err)
			}
			err := tr.Check(p)
			if errors.Is(err, ErrNotTrusted) != tt.refused || errors.Is(err, ErrBanned) != tt.refused || errors.Is(err, ErrRevoked) != tt.refused || (err != nil) != tt.refused {
				t.Errorf("Check: %v", err)
			}
			if err := tr.AddRevocations(revoke(t, tt.issuer, 2)); err != nil {
				t.Fatal(err)
			}
			if err := tr.Check(p); err != nil {
				t.Errorf("after a newer list without it: %v", err)
			}
		})
	}
}

func TestRevocationsSurviveAsText(t *testing.T) {
	key, other := newEd25519(t), newP256(t)
	var tr Trust
	for _, l := range []*RevocationList{revoke(t, key, 3, someDevice(1)), revoke(t, key, 3, someDevice(2)), revoke(t, other, 1)} {
		if err := tr.AddRevocations(l); err != nil {
			t.Fatal(err)
		}
	}
	text, err := tr.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var again Trust
	if err := again.UnmarshalText(text); err != nil {
		t.Fatal(err)
	}
	if back, _ := again.MarshalText(); !bytes.Equal(back, text) || len(again.Revocations()) != 3 {
		t.Errorf("read back:\n%s\nwritten:\n%s", back, text)
	}
	if err := again.AddRevocations(revoke(t, key, 2)); !errors.Is(err, ErrOutdated) {
		t.Errorf("rolled back after a restart: %v", err)
	}
	line := revoke(t, key, 4, someDevice(1)).line()
	for _, bad := range []string{"revocations", "revocations AAAA", "revocations !", line[:len(line)-8], line[:60] + "B" + line[61:], line + " x"} {
		damaged := strings.Replace(string(text), trustEnd+"\n", bad+"\n"+trustEnd+"\n", 1)
		if err := new(Trust).UnmarshalText([]byte(damaged)); err == nil || !strings.Contains(err.Error(), "line 5") {
			t.Errorf("%.40q…: %v", bad, err)
		}
	}
	mixed := strings.Replace(string(text), trustEnd+"\n", line+"\n"+trustEnd+"\n", 1)
	if err := new(Trust).UnmarshalText([]byte(mixed)); err == nil {
		t.Error("lists with two numbers of one issuer were read")
	}
}

// fault: J1
func TestRevocationsAreBounded(t *testing.T) {
	key := newEd25519(t)
	var tr Trust
	for i := range maxTwins {
		if err := tr.AddRevocations(revoke(t, key, 1, someDevice(byte(i)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.AddRevocations(revoke(t, key, 1, someDevice(100))); err == nil || errors.Is(err, ErrOutdated) {
		t.Errorf("another one of the same number: %v", err)
	}
	ids := make([]Subject, MaxRevoked)
	for i := range ids {
		ids[i] = DeviceID{byte(i), byte(i >> 8), 1}
	}
	held := 0
	for ; held <= maxDecisions; held += MaxRevoked {
		if err := tr.AddRevocations(revoke(t, newEd25519(t), 1, ids...)); err != nil {
			break
		}
	}
	if held+maxTwins > maxDecisions || held+MaxRevoked+maxTwins < maxDecisions {
		t.Errorf("%d ids were taken", held)
	}
	if err := tr.AddRevocations(revoke(t, key, 2, someDevice(1))); err != nil {
		t.Errorf("one that takes the place of four: %v", err)
	}
}

// The file binds the layout: it was made once and is read for ever.
func TestRevocationVector(t *testing.T) {
	const file = "testdata/revocations.pem"
	if *update {
		key := newEd25519(t)
		text, _ := revoke(t, key, 3, DeviceID{1, 2, 3}, AccountID{4, 5, 6}).MarshalText()
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseRevocationList(text)
	if err != nil {
		t.Fatal(err)
	}
	if l.Number() != 3 || !slices.Equal(l.Revoked(), []Subject{AccountID{4, 5, 6}, DeviceID{1, 2, 3}}) {
		t.Errorf("%v: %v", l, l.Revoked())
	}
	if back, _ := l.MarshalText(); !bytes.Equal(back, text) {
		t.Errorf("written again:\n%s", back)
	}
}

func FuzzParseRevocationList(f *testing.F) {
	l := revoke(f, newEd25519(f), 1, someDevice(1), AccountID{2})
	text, _ := l.MarshalText()
	f.Add(raw(l))
	f.Add(text)
	f.Add([]byte(revocationLists.magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseRevocationList(b)
		if err != nil {
			if !errors.Is(err, ErrRevocations) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := ParseRevocationList(raw(l))
		if err != nil || again.Digest() != l.Digest() || fmt.Sprint(again.Revoked()) != fmt.Sprint(l.Revoked()) {
			t.Errorf("read again: %v, %v", again, err)
		}
	})
}
