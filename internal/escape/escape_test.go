package escape

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// fault: H9
func TestNothingButWordsStays(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"hello, wörld":              "hello, wörld",
		"a\tb":                      "a\tb",
		"\x1b[2Jboo":                `\x1b[2Jboo`,
		"\x1b]0;title\a":            `\x1b]0;title\a`,
		"\u009b31mC1":               `\u009b31mC1`,
		"gpj.\u202eexe":             `gpj.\u202eexe`,
		"\u2066isolate\u2069":       `\u2066isolate\u2069`,
		"bell\a nul\x00":            `bell\a nul\x00`,
		"not utf-8 \xff":            `not utf-8 \ufffd`,
		"cut \xe2\x82":              `cut \ufffd\ufffd`,
		"\u200bzero width":          `\u200bzero width`,
		"\U000e0041tag":             `\U000e0041tag`,
		"line\rover the old":        `line\rover the old`,
		"two\nlines":                `two\nlines`,
		"日本\u3000語\u00a0x":          "日本 語 x",
		"é\u0301\u0302":             "é\u0301\u0302",
		"\u0301lone":                `\u0301lone`,
		"z" + rep("\u0300", 10):     "z" + rep("\u0300", 8) + `\u0300` + "\u0300",
		"z" + rep("\u0300", 9) + "": "z" + rep("\u0300", 8) + `\u0300`,
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

// case: S21
func TestInvisibleCharactersAreSeen(t *testing.T) {
	for _, r := range []rune{
		0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180E, 0x180F, 0x200B, 0x200D, 0x2060, 0x2064, 0x2065, 0x2800, 0x3164, 0xFE00, 0xFE0F,
		0xFEFF, 0xFFA0, 0xFFF0, 0x13441, 0x13442, 0x16FE4, 0x1BCA0, 0x1D159, 0x1D173, 0xE0001, 0xE0020, 0xE01EF,
	} {
		for _, text := range []string{"a" + string(r), string(r), "a" + string(r) + "b"} {
			if got := Line(text); strings.ContainsRune(got, r) || Visible('a', r) {
				t.Errorf("U+%04X stays in %+q", r, got)
			}
		}
	}
	for _, text := range []string{"\u2764\ufe0f", "1\ufe0f\u20e3", "\u203c\ufe0f", "\u2049\ufe0f", "\u2139\ufe0f", "\u3030\ufe0e", "\u303d\ufe0f", "\u845b\U000e0100", "\u182d\u180b"} { // heart, keycap, marks, the letter of information, wavy dash, part alternation mark, Han and Mongolian forms
		if got := Line(text); got != text {
			t.Errorf("a registered form: %+q became %+q", text, got)
		}
	}
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

// fault: H9
func TestTextKeepsItsLines(t *testing.T) {
	if got, want := Text("one\r\ntwo\nthree\rfour\x1b"), "one\ntwo\nthree"+`\rfour\x1b`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// fault: H9
func TestCutEndsBetweenCharacters(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
		cut   bool
	}{
		{"abc", 3, "abc", false},
		{"abcd", 3, "abc", true},
		{"ab€", 4, "ab", true},
		{"ab€", 5, "ab€", false},
		{"€", 1, "", true},
		{"x", -1, "", true},
		{strings.Repeat("\x80", 20), 10, strings.Repeat("\x80", 6), true}, // not UTF-8: no search for a start
	} {
		if got, cut := Cut(c.in, c.limit); got != c.want || cut != c.cut {
			t.Errorf("Cut(%q, %d) = %q, %t", c.in, c.limit, got, cut)
		}
	}
}

func TestCapIsValidAndWithinItsLimit(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"ab€", 4, "ab"},
		{"ab€", 5, "ab€"},
		{"a\xff\xffb", 9, "a\ufffdb"},
		{"a\xff\xffb", 4, "a\ufffd"},
		{"a\xffb", 3, "a"}, // the replacement takes more room than the byte
		{"x", -1, ""},
	} {
		if got := Cap(c.in, c.limit); got != c.want {
			t.Errorf("Cap(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzCap(f *testing.F) {
	f.Add("€uro\xff", 2)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got := Cap(s, limit)
		if len(got) > max(0, limit) || !utf8.ValidString(got) || Cap(got, limit) != got {
			t.Fatalf("Cap(%q, %d) = %q", s, limit, got)
		}
		if utf8.ValidString(s) && (!strings.HasPrefix(s, got) || len(got) < min(len(s), limit-3)) {
			t.Fatalf("Cap(%q, %d) = %q: more is missing than must", s, limit, got)
		}
	})
}

// fault: H9
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"plain", "\x1b]8;;http://x\x1b\\y", "\u202e\u0301", "\xff\xfe\r\n", "é" + rep("\u0301", 40), "\u3000\ufffd", "\u2800\ufe0f", "\u2764\ufe0f\ufe0f", "\xff\ufe0f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, got := range map[string]string{"Line": Line(s), "Text": Text(s)} {
			if !utf8.ValidString(got) || len(got) > 6*len(s) {
				t.Fatalf("%s(%q) = %q", name, s, got)
			}
			marks, prev := 0, rune(0)
			for _, r := range got {
				if !Visible(prev, r) && r != '\t' && (r != '\n' || name == "Line") || r == utf8.RuneError {
					t.Fatalf("%s(%q) keeps %q", name, s, r)
				}
				prev = r
				if marks++; !unicode.Is(unicode.M, r) {
					marks = 0
				}
				if marks > maxMarks {
					t.Fatalf("%s(%q) keeps %d marks on one character", name, s, marks)
				}
			}
			again := map[string]func(string) string{"Line": Line, "Text": Text}[name](got)
			if again != got {
				t.Fatalf("%s of its own result %q is %q", name, got, again)
			}
		}
	})
}

func ExampleLine() {
	fmt.Println(Line("gpj.\u202eexe\x1b[2J"))
	// Output: gpj.\u202eexe\x1b[2J
}

func BenchmarkLineOf1MiB(b *testing.B) {
	s := strings.Repeat("a\x1b", 1<<19)
	b.ReportAllocs()
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		Line(s)
	}
}
