package strictfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"peerlink/internal/strictjson"
)

func newList(t *testing.T, path string) *List[string] {
	t.Helper()
	l := &List[string]{
		Path: path, Name: "names", Limit: 64,
		Parse: func(text []byte) ([]string, error) {
			var s settings
			err := strictjson.Decode(text, 64, &s)
			return s.Names, err
		},
		File: func(names []string) any { return settings{names} },
	}
	if err := l.Load(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAListIsOnDiskBeforeItIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	l := newList(t, path)
	become := func(write bool, err error, names ...string) error {
		return l.Change(func([]string) ([]string, bool, error) { return names, write, err })
	}
	if err := become(true, nil, "a", "b"); err != nil || !slices.Equal(newList(t, path).All(), []string{"a", "b"}) {
		t.Fatalf("%v, on disk is %q", err, newList(t, path).All())
	}
	if err := become(false, nil, "c"); err != nil || !slices.Equal(l.All(), []string{"c"}) || len(newList(t, path).All()) != 2 {
		t.Errorf("not to be written: %v, %q, on disk is %q", err, l.All(), newList(t, path).All())
	}
	no := errors.New("no")
	if err := become(true, no, "d"); err != no || !slices.Equal(l.All(), []string{"c"}) {
		t.Errorf("a change that fails: %v, %q", err, l.All())
	}
	l.Path = filepath.Join(filepath.Dir(path), "missing", "names.json")
	if err := become(true, nil, "e"); err == nil || !slices.Equal(l.All(), []string{"c"}) {
		t.Errorf("a disk that fails: %v, %q", err, l.All())
	}
}

func TestADamagedListIsAnErrorAndStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	if err := os.WriteFile(path, []byte(`{"names": ["a"`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newList(t, filepath.Join(t.TempDir(), "none.json"))
	l.Path = path
	if err := l.Load(); err == nil || len(l.All()) != 0 {
		t.Errorf("%v, %q", err, l.All())
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != `{"names": ["a"` {
		t.Errorf("the file is %q now, %v", text, err)
	}
}
