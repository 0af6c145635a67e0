package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

func TestTabCompletesTheWordsOfACode(t *testing.T) {
	for _, c := range []struct {
		line string
		pos  int
		key  rune
		want string
		ok   bool
	}{
		{"7-ambi", 6, '\t', "7-ambient-", true},
		{"7 AMBI", 6, '\t', "7-ambient-", true},
		{"7-amb", 5, '\t', "7-amb", true}, // amber or ambient
		{"7-amber-mang", 12, '\t', "7-amber-mango", true},
		{"7-qq", 4, '\t', "7-qq", true},
		{"7-amb", 2, '\t', "", false},
		{"7-amb", 5, 'x', "", false},
	} {
		got, pos, ok := completeCode(c.line, c.pos, c.key)
		if got != c.want || ok != c.ok || ok && pos != len(got) {
			t.Errorf("completeCode(%q, %d, %q) = %q, %d, %t; want %q, %t", c.line, c.pos, c.key, got, pos, ok, c.want, c.ok)
		}
	}
}

func TestACodeIsReadFromOneLine(t *testing.T) {
	for in, want := range map[string]string{"7-amber-mango": "7-amber-mango", "7 amber mango\nmore": "7 amber mango\n", "": "", " \n": ""} {
		cmd := &cobra.Command{}
		cmd.SetIn(strings.NewReader(in))
		got, err := readCode(cmd)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q was read as %q, %v", in, got, err)
		}
	}
}

// fault: H9
func TestAContactsNameIsShownSafely(t *testing.T) {
	var out, note bytes.Buffer
	v := codeView{p: &printer{out: &out}, note: &note}
	err := v.show(control.CodeEvent{Step: control.CodeUsed, Met: &control.Met{Name: "bob\x1b[2J\u202e", Known: true, Unsure: true}})
	if err != errLastStep || strings.ContainsAny(out.String(), "\x1b\u202e") {
		t.Errorf("%q, %v", out.String(), err)
	}
	for _, want := range []string{"was a contact before", "has not said"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q does not say %q", out.String(), want)
		}
	}
}
