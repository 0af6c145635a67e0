package main

import (
	"errors"
	"strings"
	"testing"
)

// fault: H9
func TestNothingButWordsReachesTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"hello, wörld":       "hello, wörld",
		"a\tb":               "a\tb",
		"\x1b[2Jboo":         `\x1b[2Jboo`,
		"gpj.\u202eexe":      `gpj.\u202eexe`,
		"bell\a nul\x00":     `bell\a nul\x00`,
		"not utf-8 \xff":     `not utf-8 \ufffd`,
		"\u200bzero width":   `\u200bzero width`,
		"line\rover the old": `line\rover the old`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

// fault: H9
func TestLongLinesComeInPieces(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine+5)
	var got []string
	if err := lines(strings.NewReader("a\r\n"+long+"\n\nlast"), func(s string) error {
		if len(s) > maxLine {
			t.Errorf("a piece of %d bytes", len(s))
		}
		got = append(got, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got[0] != "a" || got[len(got)-1] != "last" || strings.Join(got[1:len(got)-1], "") != long {
		t.Errorf("%d pieces, from %q to %q", len(got), got[0], got[len(got)-1])
	}
	enough := errors.New("enough")
	if err := lines(strings.NewReader("a\nb\n"), func(string) error { return enough }); err != enough {
		t.Errorf("the reader's error was not passed on: %v", err)
	}
}
