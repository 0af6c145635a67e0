package strictfile

import (
	"os"
	"path/filepath"
	"testing"
)

type settings struct {
	Names []string `json:"names"`
}

func TestAFileIsReadWithinItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if text, err := Read(path, 4); text != nil || err != nil {
		t.Errorf("no file: %q, %v", text, err)
	}
	for _, want := range []string{"", "abcd", "abcdefgh"} {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := Read(path, 4)
		if err != nil || text == nil || string(text) != want[:min(len(want), 5)] {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
	}
	if _, err := Read(filepath.Dir(path), 4); err == nil {
		t.Error("a folder was read")
	}
}
