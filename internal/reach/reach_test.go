package reach

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string) *Book {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func via(id, addr string) Via { return Via{ID: id, Addrs: []string{addr}} }

func ids(vias []Via) (out []string) {
	for _, v := range vias {
		out = append(out, v.ID+"@"+v.Addrs[0])
	}
	return out
}

func TestLatestWayComesFirstAndOutlivesARestart(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reach.json"), time.Now()
	b := open(t, path)
	b.Worked("bob", via("1", "a"), now.Add(-2*time.Hour))
	b.Worked("bob", via("2", "b"), now.Add(-time.Hour))
	b.Worked("bob", via("1", "c"), now) // moved
	b.Worked("bob", via("", "x:1"), now)
	b.Worked("bob", via("", "x:2"), now)
	b.Worked("eve", via("3", "d"), now)
	b.Failed("eve", via("3", "other address, same id"))
	want := []string{"@x:2", "@x:1", "1@c", "2@b"}
	if got := ids(b.Known("bob", now)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	b = open(t, path)
	if got := ids(b.Known("bob", now)); !slices.Equal(got, want) || !slices.Equal(b.Names(), []string{"bob"}) {
		t.Errorf("after a restart %q, want %q; names %q", got, want, b.Names())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("written though nothing had changed")
	}
}

// fault: I4
func TestOldWaysAreForgotten(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reach.json"), time.Now()
	b := open(t, path)
	b.Worked("bob", via("old", "a"), now.Add(-life-2*time.Hour))
	b.Worked("bob", via("future", "a"), now.Add(24*time.Hour))
	b.Worked("bob", via("new", "a"), now)
	b.Worked("eve", via("old", "a"), now.Add(-life-2*time.Hour))
	if got := ids(b.Known("bob", now)); !slices.Equal(got, []string{"new@a"}) {
		t.Errorf("%q", got)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.Contains(raw, []byte("old")) || bytes.Contains(raw, []byte("eve")) {
		t.Errorf("%s, %v", raw, err)
	}
}

// fault: J1
func TestBookIsBounded(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reach.json"), time.Now()
	b := open(t, path)
	long := strings.Repeat("x", maxText)
	for i := range maxNames + 100 {
		for j := range maxVias + 5 {
			b.Worked(fmt.Sprint(long[:maxText-4], i), Via{ID: fmt.Sprint(j), Addrs: slices.Repeat([]string{"a"}, 100)}, now.Add(time.Duration(i-1000)*time.Hour/4))
		}
	}
	b.Worked("bob", via("1", long+"x"), now)
	b.Worked("bob", via("1", "\x1b[2J"), now)
	b.Worked("bob", Via{ID: "1"}, now)
	names := b.Names()
	if len(names) != maxNames || slices.Contains(names, "bob") || slices.Contains(names, long[:maxText-4]+"0") {
		t.Errorf("%d names", len(names))
	}
	for _, name := range names {
		if vias := b.Known(name, now); len(vias) > maxVias || len(vias) > 0 && len(vias[0].Addrs) > maxAddrs {
			t.Fatalf("%d ways", len(vias))
		}
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if got := open(t, path).Names(); len(got) == 0 || len(got) > maxNames {
		t.Errorf("%d names read back", len(got))
	}
}

// fault: I1, I2
func TestDamagedFileIsToldAndForgotten(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reach.json"), time.Now()
	b := open(t, path)
	b.Worked("bob", via("1", "a"), now)
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"cut": good[:len(good)/2], "empty": nil, "a list": []byte("[]"), "another key": []byte(`{"bob":[{"x":1}]}`),
		"more": append(slices.Clone(good), good...), "long": bytes.Repeat([]byte(" "), maxFile+1),
	} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), path) || b == nil || len(b.Names()) != 0 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b.Worked("eve", via("1", "a"), now)
		if err := b.Save(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := open(t, path).Names(); !slices.Equal(got, []string{"eve"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if b, err := Open(t.TempDir()); err == nil || b == nil {
		t.Errorf("a folder: %v", err)
	}
}

// fault: A1, A5
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"bob":[{"id":"1","addrs":["a"],"worked":"2026-01-02T03:04:05Z"}]}`))
	f.Add([]byte(`{"bob":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "reach.json")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := Open(path)
		for _, name := range b.Names() {
			for _, v := range b.Known(name, time.Now()) {
				if v.check() != nil || checkText(name) != nil {
					t.Fatalf("%q: %v", name, v)
				}
			}
		}
		b.Worked("bob", via("1", "a"), time.Now())
		if err := b.Save(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err != nil {
			t.Fatal(err)
		}
	})
}
