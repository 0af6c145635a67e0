package chatui

import (
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"peerlink/internal/escape"
)

// Bounds of what is shown of one message: a screenful is about 4 KiB and 50
// lines, so this is some screens, made ready in 5 ms at the worst.
const (
	maxShown  = 16 << 10
	maxBreaks = 200
	maxReason = 200
	maxName   = 64
	tabWidth  = 4
)

// entry is a message as it is shown. Only the shown part of its text is kept.
type entry struct {
	Message
	text  string // escaped, tabs expanded
	note  string // how much is missing
	lines []string
	width int // for which lines were made; 0 for none
	day   string
}

// newEntry prepares a message. The text itself is kept only where it may be
// sent again.
func newEntry(m Message, loc *time.Location) entry {
	e := entry{Message: m, day: m.Time.In(loc).Format("Mon 2 Jan 2006")}
	shown, cut := firstLines(m.Text)
	if cut {
		e.note = escape.Mark(len(shown), len(m.Text))
	}
	e.text = strings.ReplaceAll(escape.Text(shown), "\t", strings.Repeat(" ", tabWidth))
	e.Text, e.Reason = "", oneLine(m.Reason, maxReason)
	if m.Mine && m.Mark == Failed && len(m.Text) <= maxInput {
		e.Text = m.Text
	}
	return e
}

// firstLines returns what is shown of a text, and whether that is not all.
func firstLines(s string) (string, bool) {
	s, cut := escape.Cut(s, maxShown)
	end := 0
	for range maxBreaks {
		i := strings.IndexByte(s[end:], '\n')
		if i < 0 {
			return s, cut
		}
		end += i + 1
	}
	if end == len(s) {
		return s, cut
	}
	return strings.Clone(s[:end-1]), true
}

// size is what an entry keeps in memory, about.
func (e *entry) size() int { return len(e.Text) + 2*len(e.text) + 256 }

// oneLine is a foreign word or sentence for one line of the screen.
func oneLine(s string, limit int) string {
	shown, cut := escape.Cut(s, limit)
	shown = strings.ReplaceAll(escape.Line(shown), "\t", " ")
	if cut {
		shown += "…"
	}
	return shown
}

// render returns the entry's lines, none wider than width. Where there is room
// the time stands in a gutter of its own.
func (e *entry) render(who string, loc *time.Location, width int, st *styles) []string {
	if e.width == width {
		return e.lines
	}
	name, style, gutter := who, st.them, ""
	if e.Mine {
		name, style = "you", st.me
	}
	if width >= wideEnough {
		gutter = strings.Repeat(" ", len("15:04 "))
	}
	body, head := max(width-len(gutter), 1), name+": "
	lines := wrap(head+e.text, body)
	if rest, ok := strings.CutPrefix(lines[0], head); ok {
		lines[0] = style.Render(name+":") + " " + rest
	}
	if e.note != "" {
		lines = append(lines, styled(st.faint, wrap(e.note, body))...)
	}
	if e.Mine {
		lines = e.mark(lines, body, st)
	}
	for i := range lines {
		lines[i] = gutter + lines[i]
	}
	if gutter != "" && e.Seq != 0 {
		lines[0] = st.faint.Render(e.Time.In(loc).Format("15:04")) + lines[0][len("15:04"):]
	}
	e.lines, e.width = lines, width
	return lines
}

// wideEnough is from which width on a line has room for the time.
const wideEnough = 40

// mark adds what became of the message.
func (e *entry) mark(lines []string, width int, st *styles) []string {
	glyph, last := glyphs[e.Mark], len(lines)-1
	switch {
	case e.Mark == Failed:
		return append(lines, styled(st.bad, wrap(glyph+" not sent: "+e.Reason, width))...)
	case lipgloss.Width(lines[last])+1+lipgloss.Width(glyph) <= width:
		lines[last] += " " + st.faint.Render(glyph)
		return lines
	default:
		return append(lines, styled(st.faint, wrap(glyph, width))...)
	}
}

// glyphs show the marks; they differ without colour.
var glyphs = [...]string{Queued: "·", Sent: "✓", Delivered: "✓✓", Failed: "✗"}

func styled(s lipgloss.Style, lines []string) []string {
	for i, l := range lines {
		lines[i] = s.Render(l)
	}
	return lines
}

// wrap breaks escaped text into lines of at most width columns, between words
// where it can. A character that alone is wider becomes an ellipsis.
func wrap(s string, width int) []string {
	width = max(width, 1)
	lines := strings.Split(ansi.Wrap(s, width, ""), "\n")
	for i, l := range lines {
		if ansi.StringWidth(l) > width {
			lines[i] = ansi.Truncate(l, width, "…")
		}
	}
	return lines
}
