package contacts

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func device(n int) (id identity.DeviceID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

func TestBookKeepsNamesOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contacts.json")
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"bob": 1, "Ärzte": 2, "carol": 3} {
		if err := b.Add(name, device(n), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Rename("BOB", "Robert"); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.Remove(device(3).String()); err != nil || gone.Name != "carol" {
		t.Fatalf("removed %v, %v", gone, err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Book{b, again} {
		if id, err := b.Resolve("robert"); err != nil || id != device(1) {
			t.Errorf("robert is %v, %v", id, err)
		}
		if id, err := b.Resolve(device(9).String()); err != nil || id != device(9) {
			t.Errorf("an id is %v, %v", id, err)
		}
		if b.NameOf(device(2)) != "Ärzte" || b.NameOf(device(3)) != "" || len(b.List()) != 2 {
			t.Errorf("the book is %v", b.List())
		}
		if _, err := b.Resolve("bob"); !errors.Is(err, ErrUnknown) || !errors.Is(err, identity.ErrBadID) {
			t.Errorf("bob: %v", err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st.Mode(), err)
	}
}

func TestNamesAreTakenOnce(t *testing.T) {
	b, err := Open(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add("bob", device(1), time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]int{"BOB": 2, "robert": 1} {
		if err := b.Add(name, device(id), time.Now()); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Rename("nobody", "x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if err := b.Rename("bob", "BOB"); err != nil {
		t.Errorf("another spelling of its own name: %v", err)
	}
}

func TestWhoIsNobodyIsToldInWords(t *testing.T) {
	b, err := Open(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{
		"nobody":                             `"nobody": no such contact (peerchat contacts lists them), and no device id, which is 64 hex digits`,
		"1234":                               `"1234": no such contact (peerchat contacts lists them), and no device id, which is 64 hex digits`,
		"0F3C1234":                           `"0F3C1234": no such contact, and a device id is 64 hex digits, "0F3C1234" has 8 characters`,
		device(1).String()[:63] + "x":        `is not a device id`,
		strings.Repeat("0", 64):              `no such contact, and the all-zero device id names nothing`,
		"\x1b[2J" + strings.Repeat("x", 500): `"\x1b[2Jxxx`,
	} {
		_, err := b.Resolve(who)
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, identity.ErrBadID) {
			t.Errorf("%q: %v", who, err)
			continue
		}
		if got := err.Error(); !strings.Contains(got, want) || strings.Contains(got, "malformed") || len(got) > 300 {
			t.Errorf("%q: %s, want %s", who, got, want)
		}
	}
}

// fault: H9
func TestHostileNamesAreRefused(t *testing.T) {
	for _, name := range []string{
		"", " ", " bob", "bob\n", "\x1b[2J", "a\u202eb", "a\x00b", "\xff", strings.Repeat("x", 65),
		"-v", "a@b", "../bob", "tcp:1", "deadbeef", strings.Repeat("0", 64),
	} {
		if err := CheckName(name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

// fault: H6
func TestDamagedBookIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contacts.json")
	for _, text := range []string{
		"", "{", `{"contacts": [{"name": "bob"}]}`, `{"people": []}`, `{"contacts": []}{}`, "\xef\xbb\xbf{}", "{\"contacts\": [{\"name\": \"\xff\"}]}",
		`{"contacts": [{"name": "bob", "device": "12"}]}`,
		`{"contacts": [{"name": "bob", "device": "` + device(1).String() + `"}, {"name": "BOB", "device": "` + device(2).String() + `"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := Open(path); err == nil {
			t.Errorf("%q became %v", text, b.List())
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v does not name the file", text, err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%q was replaced by %q", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"contacts": [{"name": "bob", "device": "` + device(1).String() + `", "added": "2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"contacts": [{"name": "bob", "device": "` + device(1).String() + `", "added": "2026-01-01T00:00:00Z", "account": "` + device(2).String() + `", "list": 7, "devices": [{"device": "` + device(3).String() + `", "name": "phone", "seen": "2026-01-01T00:00:00Z"}]}]}`))
	f.Add([]byte(`{"contacts": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := parse(text)
		if err != nil {
			return
		}
		for _, e := range entries {
			if err := CheckName(e.Name); err != nil || e.Device.IsZero() {
				t.Fatalf("%+v was taken: %v", e, err)
			}
			if err := e.check(); err != nil {
				t.Fatalf("%+v was taken: %v", e, err)
			}
		}
	})
}
