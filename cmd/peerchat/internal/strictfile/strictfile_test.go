package strictfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type settings struct {
	Names []string `json:"names"`
}

// fault: H6
func TestWhatWasNotWrittenHereIsRefusedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "EOF",
		"{\n\"names\": [1]}":        "line 2",
		"{\n\n\"nams\": []}":        `unknown field "nams"`,
		`{"names": []} {}`:          "something follows",
		"\xef\xbb\xbf{}":            "line 1",
		"{\"names\": [\"\xff\"]}":   "UTF-8",
		`{"names": ["` + "a\nb\"]}": "line",
		strings.Repeat(" ", 65):     "more than 64 bytes",
	} {
		if err := Decode([]byte(text), 64, new(settings)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	var s settings
	if err := Decode([]byte("{\r\n\"names\": [\"a\"]}\r\n"), 64, &s); err != nil || len(s.Names) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
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

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"names": ["a"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s settings
		if err := Decode(text, 1<<10, &s); err == nil && len(text) > 1<<10 {
			t.Error("longer than allowed")
		}
	})
}
