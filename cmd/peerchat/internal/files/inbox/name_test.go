package inbox

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// fault: H1
func TestHostileNamesAreRefusedOrEscaped(t *testing.T) {
	long := strings.Repeat("x", 300)
	for in, want := range map[string]string{
		"":                   "",
		".":                  "",
		"..":                 "",
		"../x":               "",
		"/etc/passwd":        "",
		"nul\x00":            "",
		"\xff":               "",
		long:                 "",
		long[:255]:           long[:255],
		long[:254] + ":":     "", // too long when escaped
		".peerlink-part-x":   "",
		".Peerlink-Part-x":   "",
		`a\b`:                "a%5Cb",
		`C:\x`:               "C%3A%5Cx",
		"a:b":                "a%3Ab",
		"CON":                "CON_",
		"con.txt":            "con_.txt",
		"lpt1 .x":            "lpt1 _.x",
		"COM¹":               "COM¹_",
		"COM10":              "COM10",
		"console":            "console",
		"dot.":               "dot%2E",
		"...":                "..%2E",
		" x ":                "%20x%20",
		"bell\a":             "bell%07",
		"a\u3164":            "a%E3%85%A4",
		"1\ufe0f.txt":        "1\ufe0f.txt",
		"\x1b[2Jx":           "%1B[2Jx",
		"rtl\u202egpj.exe":   "rtl%E2%80%AEgpj.exe",
		"e\u0301.txt":        "é.txt", // NFD becomes NFC
		"é.txt":              "é.txt",
		"100%.txt":           "100%.txt",
		"photo of us ☀.jpg":  "photo of us ☀.jpg",
		".profile":           ".profile",
		"\u200b":             "%E2%80%8B",
		"a\u2028b":           "a%E2%80%A8b",
		"tab\tand\r\nreturn": "tab%09and%0D%0Areturn",
	} {
		got, err := Clean([]string{in})
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("Clean(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestPathsAreBounded(t *testing.T) {
	for what, c := range map[string]struct {
		path []string
		ok   bool
	}{
		"none":     {nil, false},
		"deep":     {strings.Split(strings.Repeat("x ", MaxDepth)[:2*MaxDepth-1], " "), true},
		"too deep": {strings.Split(strings.Repeat("x ", MaxDepth+1)[:2*MaxDepth+1], " "), false},
		"too long": {strings.Split(strings.Repeat(strings.Repeat("x", 255)+" ", 16)[:16*256-1], " "), false},
		"upwards":  {[]string{"a", "..", "..", "b"}, false},
		"hidden":   {[]string{"a", ".peerlink-part-0", "b"}, false},
	} {
		if p, err := Clean(c.path); (err == nil) != c.ok {
			t.Errorf("%s: %.20q, %v", what, p, err)
		}
	}
}

func TestNumbersStandBeforeTheExtension(t *testing.T) {
	for in, want := range map[string]string{
		"photo.jpg":                      "photo (2).jpg",
		".profile":                       ".profile (2)",
		"README":                         "README (2)",
		strings.Repeat("é", 126) + ".go": strings.Repeat("é", 124) + " (2).go",
		strings.Repeat("x", 255):         strings.Repeat("x", 251) + " (2)",
	} {
		if got := numbered(in, 2); got != want || len(got) > MaxNameLen {
			t.Errorf("numbered(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "CON.txt", "a:b", "e\u0301", "dot.", "\x1b[2J"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		elements := strings.Split(s, "/")
		p, err := Clean(elements)
		if err != nil {
			return
		}
		if !fs.ValidPath(p) || len(p) > MaxPathLen || !utf8.ValidString(p) || strings.Count(p, "/") != len(elements)-1 {
			t.Fatalf("%q became %q", s, p)
		}
		for e := range strings.SplitSeq(p, "/") {
			if len(e) > MaxNameLen || device(e) || strings.HasPrefix(e, partPrefix) || strings.ContainsAny(e, `\:*?"<>|`) || strings.HasSuffix(e, ".") {
				t.Fatalf("%q became %q", s, p)
			}
		}
		if i := strings.IndexFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("%q became %q, which is not printable", s, p)
		}
		again, err := Clean(strings.Split(p, "/"))
		if err != nil || again != p || path.Clean(p) != p {
			t.Fatalf("%q became %q, and then %q (%v)", s, p, again, err)
		}
	})
}
