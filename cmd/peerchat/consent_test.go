package main

import "testing"

// case: S15
func TestFilesOfStrangersNeedATerminalOrAWord(t *testing.T) {
	for _, c := range []struct {
		flag     string
		terminal bool
		want     string // empty: an error
	}{
		{"", true, acceptAsk},
		{"", false, acceptContacts},
		{acceptAlways, false, acceptAlways},
		{acceptAlways, true, acceptAlways},
		{acceptContacts, true, acceptContacts},
		{acceptAsk, true, acceptAsk},
		{acceptAsk, false, ""},
		{"sometimes", true, ""},
	} {
		got, err := acceptPolicy(c.flag, c.terminal)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("--accept %q, on a terminal: %v: %q, %v", c.flag, c.terminal, got, err)
		}
		if c.want != "" && policies[got] == "" {
			t.Errorf("%s is not told in words", got)
		}
	}
}
