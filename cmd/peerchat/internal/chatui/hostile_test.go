package chatui

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// hostile is what a stranger may write or call himself.
var hostile = []string{
	"\x1b[2J\x1b[Hcleared", "\x1b]0;owned\a", "\x1b]52;c;cm0gLXJm\x1b\\", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
	"\u202egpj.exe", "\u2066\u2067\u2068", "\x9b31m", "\u009b31m", "a\rb\bc\vd", "\x00\x07", "\xff\xfe\xc3(", "z" + strings.Repeat("\u0300", 5000),
	strings.Repeat("\n", 20000), strings.Repeat("\t", 5000), strings.Repeat("宽", 30000), strings.Repeat("👨‍👩‍👧", 500), "\u200b\u2060\ufeff", "",
}

// safe fails if anything but words, or more than width columns, is in a line.
func safe(t *testing.T, what, line string, width int) {
	t.Helper()
	plain := ansi.Strip(line)
	if w := ansi.StringWidth(plain); w > width {
		t.Errorf("%s: %d columns of %d", what, w, width)
	}
	for _, r := range plain {
		if !unicode.IsPrint(r) {
			t.Errorf("%s: %q is shown raw", what, r)
		}
	}
}

// fault: H9
func TestHostileWordsAreShownEscaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, h := range hostile {
			b := newMemory(Contact{ID: "x" + h, Name: h, Detail: h, Presence: 77, Unread: 1 << 40}, Contact{ID: "other"})
			b.put(Message{Contact: "x" + h, Text: h})
			b.put(Message{Contact: "x" + h, Mine: true, Mark: Failed, Text: h, Reason: h})
			s := open(t, b, 70, 20)
			for l := range strings.SplitSeq(s.m.View().Content, "\n") {
				safe(t, h[:min(len(h), 20)], l, 70)
			}
			if strings.Contains(s.m.View().WindowTitle, "owned") {
				t.Error("a stranger names the window")
			}
		}
	})
}

// fault: H9
func TestALineOf10MBIsCutWithAMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier"})
		s := open(t, b, 80, 24)
		b.say(Message{Contact: "x", Text: strings.Repeat("10 MB ", 10<<20/6)})
		s.settle()
		s.shows("[cut: 16384 of 10485756 bytes shown]")
		if e := s.m.open.entries[0]; len(e.text) > 2*maxShown || e.Text != "" {
			t.Errorf("%d bytes are kept", len(e.text)+len(e.Text))
		}
		b.say(Message{Contact: "x", Text: strings.Repeat("\n", 10<<20)})
		s.settle()
		s.shows("[cut: 199 of 10485760 bytes shown]")
		b.say(Message{Contact: "x", Text: "still alive"})
		s.settle()
		s.shows("still alive")
	})
}

// fault: H9
func TestAPasteIsCleanedAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, company(), 80, 24)
		s.send(tea.PasteMsg{Content: "one\r\ntwo\rthree\n\tfour\x1b[31m\u202e"})
		s.shows("› one", "two", "three", "    four[31m", "pasted without 2 characters that cannot be seen")
		s.press(enter)
		b := s.m.b.(*memory)
		if got := b.sent[0].text; got != "one\ntwo\nthree\n    four[31m" {
			t.Errorf("sent %q", got)
		}
		// More than fits, in bytes and in lines.
		s.send(tea.PasteMsg{Content: strings.Repeat("x", 10<<20)})
		s.shows("pasted in part: 104693")
		if n := len(s.m.input.Value()); n > maxInput || n < maxInput-4 {
			t.Errorf("%d bytes are in the input", n)
		}
		s.press(enter)
		s.send(tea.PasteMsg{Content: strings.Repeat("y\n", 3000)})
		s.shows("pasted in part: 5201 bytes did not fit")
		if n := s.m.input.LineCount(); n != maxLines {
			t.Errorf("%d lines are in the input", n)
		}
		s.press(tea.KeyPressMsg{Code: tea.KeyEnter, Mod: tea.ModAlt})
		if n := s.m.input.LineCount(); n != maxLines {
			t.Errorf("%d lines are in the input", n)
		}
	})
}

// fault: H9
func FuzzEntry(f *testing.F) {
	for i, h := range hostile {
		f.Add(h, "alice", uint8(i*11), i%2 == 0)
	}
	st := newStyles()
	f.Fuzz(func(t *testing.T, text, name string, width uint8, mine bool) {
		w := max(int(width), 1)
		e := newEntry(Message{Seq: 1, Text: text, Reason: name, Mine: mine, Mark: Failed, Time: noon}, time.UTC)
		lines := e.render(oneLine(name, maxName), time.UTC, w, &st)
		if len(lines) == 0 {
			t.Fatal("no line")
		}
		for _, l := range lines {
			safe(t, text, l, w)
		}
		if w >= 20 && text == "plain words" && !strings.Contains(strings.Join(lines, "\n"), text) {
			t.Errorf("%q shows %q", text, lines)
		}
	})
}

// The worst cases that pass the bounds, at the widths where they cost most.
func BenchmarkWorstEntries(b *testing.B) {
	st := newStyles()
	for name, text := range map[string]string{
		"one word": strings.Repeat("x", maxShown), "escapes": strings.Repeat("\x1b", maxShown), "wide": strings.Repeat("宽", maxShown/3),
		"marks": strings.Repeat("é\u0301", maxShown/4), "spaces": strings.Repeat(" ", maxShown),
	} {
		for width, at := range map[int]string{1: "1", 80: "80"} {
			b.Run(name+"/"+at, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e := newEntry(Message{Seq: 1, Text: text, Time: noon}, time.UTC)
					e.render("alice", time.UTC, width, &st)
				}
			})
		}
	}
}

// A key in an input that is as large as it may be.
func BenchmarkKeyInAFullInput(b *testing.B) {
	for name, text := range map[string]string{"one line": strings.Repeat("word ", maxInput/5-1), "lines": strings.Repeat("some code here\n", maxLines-1)} {
		b.Run(name, func(b *testing.B) {
			w := newWork(b.Context())
			defer w.end()
			m := newModel(company(), Config{}, w)
			m.Init()
			m.Update(tea.WindowSizeMsg{Width: 100, Height: 40})
			m.paste(text)
			for b.Loop() {
				m.Update(tea.KeyPressMsg{Code: 'x', Text: "x"})
				m.View()
				m.Update(tea.KeyPressMsg{Code: tea.KeyBackspace})
			}
		})
	}
}
