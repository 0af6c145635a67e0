package strictjson

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type settings struct {
	Names []string      `json:"names"`
	Wait  time.Duration `json:"wait"`
}

// fault: H6
func TestWhatWasNotWrittenHereIsRefusedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "line 1: it is empty",
		"{\n\"names\": [1]}":              "line 2",
		"{\n\n\"nams\": []}":              `line 3: unknown key "nams"`,
		`{"Names": []}`:                   `line 1: unknown key "Names"`,
		"{\"names\": [],\n\"names\": []}": `line 2: "names" is set twice`,
		"{\"names\": []}\n{}":             "line 2: there is more after the end",
		"{\n\"names\": [":                 "line 2: the rest is cut off",
		"{\n// mine\n}":                   "line 2: not JSON",
		"\xef\xbb\xbf{}":                  "line 1: it begins with a byte order mark",
		"\xff\xfe{\x00":                   "line 1: it is UTF-16",
		"{\"names\":\n[\"\xff\"]}":        "line 2: not UTF-8",
		"{\"names\": [\"\\ud800\"]}":      "line 1: not JSON",
		`{"names": ["` + "a\nb\"]}":       "line 1: not JSON",
		strings.Repeat(" ", 65):           "too long: at most 64 bytes",
		"{\"wait\": \n\"1s\"}":            "line 2",
		"{\n\"names\": [1, 2]}":           `line 2: a number cannot be at "/names/0"`,
		"[]":                              `line 1: a list cannot be at "/"`,
		"{\"wait\": 1e400}":               "line 1",
		"{\"names\": {\n\"a\": 1}}":       "line 1",
		strings.Repeat("[", 64):           "line 1",
		"hello":                           "line 1: not JSON",
		"{\"" + strings.Repeat("x", 30):   "line 1: the rest is cut off",
		"{\"" + strings.Repeat("\n", 30):  "line 1: not JSON",
	} {
		err := Decode([]byte(text), 64, new(settings))
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	var s settings
	if err := Decode([]byte("{\r\n\"names\": [\"a\"], \"wait\": 1000}\r\n"), 64, &s); err != nil || len(s.Names) != 1 || s.Wait != time.Microsecond {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"names": ["a"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s settings
		switch err := Decode(text, 1<<10, &s); {
		case err == nil && len(text) > 1<<10:
			t.Error("longer than allowed")
		case err != nil && err.Error() == "":
			t.Error("an error without words")
		}
	})
}
