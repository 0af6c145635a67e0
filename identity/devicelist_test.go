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

// list makes a device list that must come about.
func list(t testing.TB, account crypto.Signer, number uint64, devices ...ListedDevice) *DeviceList {
	t.Helper()
	l, err := (&Identity{account: account}).DeviceList(number, devices...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func rawList(l *DeviceList) []byte {
	b, _ := l.MarshalBinary()
	return b
}

func TestDeviceListSaysWhichDevicesThereAre(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"Ed25519": newEd25519(t), "P-256": newP256(t)} {
		t.Run(name, func(t *testing.T) {
			account, err := New("a", key)
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now().Add(-time.Millisecond)
			l := list(t, key, 7, ListedDevice{someDevice(2), "laptop"}, ListedDevice{someDevice(1), "Ä phone"}, ListedDevice{someDevice(2), "twice"})
			if l.Account() != account.AccountID() || l.Number() != 7 || l.Issued().Before(before) {
				t.Errorf("%v, issued %v", l, l.Issued())
			}
			if want := []ListedDevice{{someDevice(1), "Ä phone"}, {someDevice(2), "laptop"}}; !slices.Equal(l.Devices(), want) {
				t.Errorf("it lists %v, want %v", l.Devices(), want)
			}
			if !l.Has(someDevice(1)) || l.Has(someDevice(3)) {
				t.Error("it has others than were asked for")
			}
			text, err := l.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range [][]byte{rawList(l), text, append([]byte("\r\n\n"), text...)} {
				again, err := ParseDeviceList(b)
				if err != nil || !bytes.Equal(rawList(again), rawList(l)) {
					t.Errorf("read again: %v, %v", again, err)
				}
			}
		})
	}
}

func TestOnlyTheAccountsKeyListsDevices(t *testing.T) {
	if _, err := deviceOnly(t).DeviceList(1, ListedDevice{someDevice(1), "x"}); err == nil {
		t.Error("a device without its account's key made a list")
	}
	id := generate(t, "alice")
	if l, err := id.DeviceList(1, ListedDevice{someDevice(1), "x"}); err != nil || l.Account() != id.AccountID() {
		t.Errorf("%v, %v", l, err)
	}
	many := make([]ListedDevice, MaxDevices+1)
	for i := range many {
		many[i] = ListedDevice{someDevice(byte(i + 1)), strings.Repeat("n", MaxNameLen)}
	}
	if _, err := id.DeviceList(1, many...); err == nil {
		t.Error("a list past its bound was made")
	}
	if l, err := id.DeviceList(MaxRevocationNumber, many[1:]...); err != nil || len(rawList(l)) > MaxDeviceListLen {
		t.Errorf("the longest list: %v", err)
	}
	if _, err := id.DeviceList(MaxRevocationNumber + 1); err == nil {
		t.Error("a number past its bound was taken")
	}
	if _, err := id.DeviceList(1, ListedDevice{someDevice(1), "\x1b[2J"}); err == nil {
		t.Error("a name for a terminal to obey was taken")
	}
}

// fault: D6
func TestDamagedDeviceListsAreRefused(t *testing.T) {
	key := newEd25519(t)
	good := rawList(list(t, key, 1, ListedDevice{someDevice(1), "a"}, ListedDevice{someDevice(2), "b"}))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := ParseDeviceList(bad); !errors.Is(err, ErrDeviceList) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := ParseDeviceList(good[:i]); !errors.Is(err, ErrDeviceList) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	keyLen := int(binary.BigEndian.Uint16(good[4:]))
	ids := len(deviceLists.magic) + 2 + keyLen + 8 + 8 + 2
	const one = idLen + 2 // a device whose name has one byte
	signed := func(purpose string, edit func(b []byte)) []byte {
		b := bytes.Clone(good[:len(good)-1-64])
		edit(b)
		sig, err := sign(key, purpose, b)
		if err != nil {
			t.Fatal(err)
		}
		return append(append(b, byte(len(sig))), sig...)
	}
	if _, err := ParseDeviceList(signed(deviceLists.purpose, func([]byte) {})); err != nil {
		t.Fatalf("signed again without a change: %v", err)
	}
	for what, b := range map[string][]byte{
		"nothing":          nil,
		"bytes follow":     append(bytes.Clone(good), 0),
		"another block":    []byte("-----BEGIN PEERLINK REVOCATIONS-----\nAAAA\n-----END PEERLINK REVOCATIONS-----\n"),
		"endless PEM":      append([]byte("-----BEGIN PEERLINK DEVICES-----\n"), make([]byte, 2*MaxDeviceListLen)...),
		"endless":          append(bytes.Clone(good), make([]byte, MaxDeviceListLen)...),
		"count past list":  signed(deviceLists.purpose, func(b []byte) { binary.BigEndian.PutUint16(b[ids-2:], MaxDevices) }),
		"count past most":  signed(deviceLists.purpose, func(b []byte) { binary.BigEndian.PutUint16(b[ids-2:], 0xffff) }),
		"twice the same":   signed(deviceLists.purpose, func(b []byte) { copy(b[ids+one:], b[ids:ids+one]) }),
		"out of order":     signed(deviceLists.purpose, func(b []byte) { b[ids] = 0xff }),
		"no device":        signed(deviceLists.purpose, func(b []byte) { clear(b[ids : ids+idLen]) }),
		"no name":          signed(deviceLists.purpose, func(b []byte) { b[ids+idLen] = 0 }),
		"name past most":   signed(deviceLists.purpose, func(b []byte) { b[ids+idLen] = MaxNameLen + 1 }),
		"unprintable name": signed(deviceLists.purpose, func(b []byte) { b[ids+idLen+1] = 7 }),
		"another purpose":  signed(revocationLists.purpose, func([]byte) {}),
	} {
		if l, err := ParseDeviceList(b); !errors.Is(err, ErrDeviceList) {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

// case: E16
func TestAListOfAnyKindIsRead(t *testing.T) {
	key := newEd25519(t)
	devices, revoked := list(t, key, 1, ListedDevice{someDevice(1), "a"}), revoke(t, key, 2, someDevice(2))
	for want, b := range map[string][]byte{
		"*identity.DeviceList device list 1":         rawList(devices),
		"*identity.RevocationList revocation list 2": raw(revoked),
		"<nil> <nil>": []byte("PLX1 of a later version"),
	} {
		l, err := ParseList(b)
		if err != nil || !strings.HasPrefix(fmt.Sprintf("%T %v", l, l), want) {
			t.Errorf("%T %v, %v, want %s", l, l, err, want)
		}
	}
	if l, err := ParseList(nil); l != nil || err != nil {
		t.Errorf("nothing: %v, %v", l, err)
	}
	if l, err := ParseList(rawList(devices)[:40]); l != nil || !errors.Is(err, ErrDeviceList) {
		t.Errorf("a device list that is cut off: %v", err)
	}
	if l, err := ParseList(raw(revoked)[:40]); l != nil || !errors.Is(err, ErrRevocations) {
		t.Errorf("a revocation list that is cut off: %v", err)
	}
}

// The file binds the layout: it was made once and is read for ever.
func TestDeviceListVector(t *testing.T) {
	const file = "testdata/devices.pem"
	if *update {
		text, _ := list(t, newEd25519(t), 3, ListedDevice{DeviceID{4, 5, 6}, "Ärztin's phone"}, ListedDevice{DeviceID{1, 2, 3}, "laptop"}).MarshalText()
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseDeviceList(text)
	if err != nil {
		t.Fatal(err)
	}
	if l.Number() != 3 || !slices.Equal(l.Devices(), []ListedDevice{{DeviceID{1, 2, 3}, "laptop"}, {DeviceID{4, 5, 6}, "Ärztin's phone"}}) {
		t.Errorf("%v: %v", l, l.Devices())
	}
	if back, _ := l.MarshalText(); !bytes.Equal(back, text) {
		t.Errorf("written again:\n%s", back)
	}
}

func FuzzParseDeviceList(f *testing.F) {
	l := list(f, newEd25519(f), 1, ListedDevice{someDevice(1), "a"}, ListedDevice{someDevice(2), "b"})
	text, _ := l.MarshalText()
	f.Add(rawList(l))
	f.Add(text)
	f.Add([]byte(deviceLists.magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseDeviceList(b)
		if err != nil {
			if !errors.Is(err, ErrDeviceList) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := ParseDeviceList(rawList(l))
		if err != nil || !bytes.Equal(rawList(again), rawList(l)) || fmt.Sprint(again.Devices()) != fmt.Sprint(l.Devices()) {
			t.Errorf("read again: %v, %v", again, err)
		}
	})
}
