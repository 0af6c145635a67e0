package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Bounds of a screen.
const (
	maxColumns = 400
	maxLines   = 200
	maxBytes   = 64 << 10 // of a line: a colour before each character
)

// look is how characters are drawn. A colour is "" for the terminal's own, else
// #rrggbb.
type look struct {
	fg, bg               string
	bold, faint, reverse bool
}

// span is characters of one look, from a column on.
type span struct {
	look
	col, width int
	text       string
}

func parse(r io.Reader) ([][]span, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxBytes)
	var lines [][]span
	var now look // it goes on from line to line
	for s.Scan() {
		if len(lines) == maxLines {
			return nil, fmt.Errorf("more than %d lines", maxLines)
		}
		line, err := parseLine(s.Text(), &now)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(lines)+1, err)
		}
		lines = append(lines, line)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("the screen: %w", err)
	}
	if len(lines) == 0 {
		return nil, errors.New("no screen: want the output of tmux capture-pane -e -p")
	}
	return lines, nil
}

// parseLine cuts a line where its look changes.
func parseLine(s string, now *look) ([]span, error) {
	var out []span
	var state byte
	col := 0
	for s != "" {
		seq, width, n, next := ansi.DecodeSequence(s, state, nil)
		s, state = s[n:], next
		if width == 0 {
			if params, ok := strings.CutPrefix(seq, "\x1b["); ok && strings.HasSuffix(seq, "m") {
				now.set(strings.TrimSuffix(params, "m"))
			}
			continue
		}
		if last := len(out) - 1; last >= 0 && out[last].look == *now {
			out[last].text += seq
			out[last].width += width
		} else {
			out = append(out, span{*now, col, width, seq})
		}
		if col += width; col > maxColumns {
			return nil, fmt.Errorf("more than %d columns", maxColumns)
		}
	}
	return out, nil
}

// set follows one sequence of SGR parameters.
func (l *look) set(params string) {
	p := strings.FieldsFunc(params, func(r rune) bool { return r == ';' || r == ':' })
	if len(p) == 0 {
		*l = look{}
	}
	for i := 0; i < len(p); i++ {
		n, err := strconv.Atoi(p[i])
		if err != nil {
			return
		}
		switch {
		case n == 0:
			*l = look{}
		case n == 1:
			l.bold = true
		case n == 2:
			l.faint = true
		case n == 22:
			l.bold, l.faint = false, false
		case n == 7:
			l.reverse = true
		case n == 27:
			l.reverse = false
		case n >= 30 && n <= 37:
			l.fg = indexed(n - 30)
		case n >= 90 && n <= 97:
			l.fg = indexed(n - 90 + 8)
		case n >= 40 && n <= 47:
			l.bg = indexed(n - 40)
		case n >= 100 && n <= 107:
			l.bg = indexed(n - 100 + 8)
		case n == 39:
			l.fg = ""
		case n == 49:
			l.bg = ""
		case n == 38 || n == 48:
			c, used := extended(p[i+1:])
			if i += used; n == 38 {
				l.fg = c
			} else {
				l.bg = c
			}
		}
	}
}

// extended reads 5;N or 2;R;G;B and says how many parameters that were.
func extended(p []string) (string, int) {
	num := func(i int) int {
		n, err := strconv.Atoi(p[i])
		if err != nil {
			return 0
		}
		return min(max(n, 0), 255)
	}
	switch {
	case len(p) >= 2 && p[0] == "5":
		return indexed(num(1)), 2
	case len(p) >= 4 && p[0] == "2":
		return fmt.Sprintf("#%02x%02x%02x", num(1), num(2), num(3)), 4
	default:
		return "", len(p)
	}
}

// sixteen are the named colours, readable on the picture's background.
var sixteen = [16]string{
	"#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
	"#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
}

// indexed is a colour of the 256: the named ones, a cube of six levels, greys.
func indexed(n int) string {
	switch {
	case n < 16:
		return sixteen[n]
	case n < 232:
		level := func(i int) int {
			if i == 0 {
				return 0
			}
			return 55 + 40*i
		}
		n -= 16
		return fmt.Sprintf("#%02x%02x%02x", level(n/36), level(n/6%6), level(n%6))
	default:
		g := 8 + 10*(n-232)
		return fmt.Sprintf("#%02x%02x%02x", g, g, g)
	}
}
