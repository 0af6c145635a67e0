package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestIDRoundTrip(t *testing.T) {
	me := generate(t, "me")
	d, err := ParseDeviceID(strings.ToUpper(me.DeviceID().String()))
	if err != nil || d != me.DeviceID() {
		t.Errorf("%v, %v", d, err)
	}
	a, err := ParseAccountID(me.AccountID().String())
	if err != nil || a != me.AccountID() {
		t.Errorf("%v, %v", a, err)
	}
	if d.Short() != d.String()[:8] || a.Short() != a.String()[:8] {
		t.Errorf("short forms %s of %s, %s of %s", d.Short(), d, a.Short(), a)
	}
	if d.IsZero() || a.IsZero() || !(DeviceID{}).IsZero() || !(AccountID{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	if d.String() == a.String() {
		t.Error("device and account share a key")
	}
}

func TestIDsAreTextInJSON(t *testing.T) {
	type both struct {
		D DeviceID
		A AccountID
		M map[DeviceID]int
	}
	me := generate(t, "me")
	in := both{me.DeviceID(), me.AccountID(), map[DeviceID]int{me.DeviceID(): 7}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out both
	if err := json.Unmarshal(b, &out); err != nil || out.D != in.D || out.A != in.A || out.M[in.D] != 7 {
		t.Errorf("%s became %+v, %v", b, out, err)
	}
	keep := out
	for _, bad := range []string{`{"D":"xyz"}`, `{"A":"00"}`, `{"M":{"q":1}}`} {
		if err := json.Unmarshal([]byte(bad), &out); !errors.Is(err, ErrBadID) {
			t.Errorf("%s: %v, want ErrBadID", bad, err)
		}
	}
	if out.D != keep.D || out.A != keep.A {
		t.Error("a refused text changed the id")
	}
}

func TestMalformedIDsAreRefused(t *testing.T) {
	good := generate(t, "me").DeviceID().String()
	for _, s := range []string{
		"", "0", good[1:], good + "0", good + "\n", " " + good[1:], "0x" + good[2:], "g" + good[1:],
		strings.Repeat("0", 64), strings.Repeat("é", 32), strings.Repeat("x", 1<<20), good[:62] + "\x1b[",
	} {
		for kind, parse := range map[string]func(string) error{
			"device":  func(s string) error { _, err := ParseDeviceID(s); return err },
			"account": func(s string) error { _, err := ParseAccountID(s); return err },
		} {
			err := parse(s)
			if !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), kind) {
				t.Errorf("%s %.70q: %v", kind, s, err)
			}
			if err != nil && (len(err.Error()) > 500 || strings.ContainsRune(err.Error(), '\x1b')) {
				t.Errorf("the error is %d bytes long or not escaped: %.200q", len(err.Error()), err)
			}
		}
	}
}

func FuzzParseDeviceID(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("0", 64))
	f.Add(strings.Repeat("aB", 32))
	f.Add(strings.Repeat("f", 63) + "\x00")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseDeviceID(s)
		switch {
		case err != nil && (!id.IsZero() || !errors.Is(err, ErrBadID)):
			t.Errorf("%q: %v with %v", s, id, err)
		case err == nil && (id.IsZero() || !strings.EqualFold(id.String(), s)):
			t.Errorf("%q became %v", s, id)
		}
	})
}
