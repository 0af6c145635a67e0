// Package escape makes text of strangers safe to show on a terminal: what
// could move the cursor, ring, paint, hide or turn text is written as an escape
// sequence of Go instead.
//
//	fmt.Println(escape.Line("gpj.\u202eexe\x1b[2J")) // gpj.\u202eexe\x1b[2J
//
// What stays is what Visible names: letters, marks, numbers, punctuation and
// symbols that show something, and spaces. Among the rest, which is escaped, are
// all control characters, all bidirectional controls, all invisible characters
// (the joiner of composed emojis too) and each byte that is not UTF-8.
//
// # Limits
//
// It is about terminals, not about people: letters that look like other
// letters stay as they are. A backslash is not escaped, so the text "\x1b"
// typed by hand looks like an escaped escape.
package escape

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks a character may carry: more than the
// five that living scripts use, few enough not to grow out of its line.
const maxMarks = 8

// Line returns s as one line: line breaks are escaped too, tabs stay. Other
// spaces than the plain one become plain. It does not change what it returned
// before, and the result is at most six times as long as s.
func Line(s string) string { return escape(s, false) }

// Text is Line for a text of several lines: "\n" stays, "\r\n" becomes "\n".
func Text(s string) string { return escape(s, true) }

// Cut returns at most limit bytes of the beginning of s, not ending within a
// character, and whether anything is missing. The result keeps no more memory
// alive than itself. A limit below zero counts as zero.
func Cut(s string, limit int) (string, bool) {
	limit = max(limit, 0)
	if len(s) <= limit {
		return s, false
	}
	for back := 0; back < utf8.UTFMax && limit > 0 && !utf8.RuneStart(s[limit]); back++ {
		limit--
	}
	return strings.Clone(s[:limit]), true
}

// Cap returns at most limit bytes of the beginning of s as valid UTF-8, for what
// is told to a peer: no character is cut in half, and bytes that are not UTF-8
// become U+FFFD, one for each run of them. A limit below zero counts as zero.
func Cap(s string, limit int) string {
	s, _ = Cut(s, limit) // first: what follows takes time for each byte
	s, _ = Cut(strings.ToValidUTF8(s, "\uFFFD"), limit)
	return s
}

// Mark says how much of a text of size bytes is missing where only shown are.
func Mark(shown, size int) string {
	return fmt.Sprintf("[cut: %d of %d bytes shown]", shown, size)
}

// blank are symbols and letters that show nothing though Unicode does not count them
// among the ignorable code points: the empty Braille pattern, the null notehead, the
// filler of Khitan and the two blanks of Egyptian hieroglyphs.
var blank = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x13441, Hi: 0x13442, Stride: 1}, {Lo: 0x16FE4, Hi: 0x16FE4, Stride: 1}, {Lo: 0x1D159, Hi: 0x1D159, Stride: 1}},
}

// Visible reports whether r shows something, or chooses a form of the character
// before, which is prev (0: there is none). The space is visible. Code points of the
// property Default_Ignorable_Code_Point are not (Unicode 15, chapter 5.21), but for
// variation selectors where Unicode registers sequences with them: behind symbols,
// the characters of keycaps and five more that are no symbols, Han and Mongolian.
func Visible(prev, r rune) bool {
	switch {
	case !unicode.IsPrint(r), unicode.In(r, blank, unicode.Other_Default_Ignorable_Code_Point):
		return false // what else is ignorable is of category Cf, which IsPrint refuses
	case !unicode.Is(unicode.Variation_Selector, r):
		return true
	case r >= 0xE0100:
		return unicode.Is(unicode.Han, prev)
	case r < 0xFE00:
		return unicode.Is(unicode.Mongolian, prev)
	}
	return r >= 0xFE0E && (unicode.Is(unicode.S, prev) || strings.ContainsRune("#*0123456789\u203c\u2049\u2139\u3030\u303d", prev))
}

func escape(s string, breaks bool) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	marks := maxMarks // none may stand at the beginning, where they would join what is before
	var prev, r rune
	for i := 0; i < len(s); {
		prev = r
		var n int
		r, n = utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case breaks && r == '\r' && strings.HasPrefix(s[i:], "\n"):
		case breaks && r == '\n', r == '\t':
			b.WriteRune(r)
			marks = maxMarks
		case r == utf8.RuneError:
			b.WriteString(`\ufffd`)
			marks, r = 0, 0
		case unicode.Is(unicode.Zs, r):
			b.WriteByte(' ')
			marks = 0
		case unicode.Is(unicode.M, r) && marks < maxMarks && Visible(prev, r):
			b.WriteRune(r)
			marks++
		case unicode.Is(unicode.M, r), !Visible(prev, r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			marks, r = 0, 0
		default:
			b.WriteRune(r)
			marks = 0
		}
	}
	return b.String()
}

// clean is a quick look for what nearly every text is: plain ASCII.
func clean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] > '~' {
			return false
		}
	}
	return true
}
