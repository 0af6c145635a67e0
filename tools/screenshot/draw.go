package main

import (
	"fmt"
	"html"
	"strings"

	"peerlink/internal/escape"
)

// Sizes of a cell and the room around the screen, in pixels.
const (
	cellWidth, cellHeight = 9, 19
	margin                = 14
	paper, words          = "#0d1117", "#e6edf3"
)

// svg draws the lines.
func svg(title string, lines [][]span) []byte {
	columns := 1
	for _, l := range lines {
		if n := len(l); n > 0 {
			columns = max(columns, l[n-1].col+l[n-1].width)
		}
	}
	w, h := columns*cellWidth+2*margin, len(lines)*cellHeight+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n", w, h, w, h)
	fmt.Fprintf(&b, "<title>%s</title>\n", html.EscapeString(escape.Line(title)))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="%s"/>`+"\n", w, h, paper)
	fmt.Fprintf(&b, `<g font-family="ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace" font-size="15">`+"\n")
	for y, l := range lines {
		for _, s := range l {
			s.draw(&b, y)
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return []byte(b.String())
}

func (s span) draw(b *strings.Builder, line int) {
	fg, bg := s.fg, s.bg
	if s.reverse {
		fg, bg = or(bg, paper), or(fg, words)
	}
	x, y := margin+s.col*cellWidth, margin+line*cellHeight
	if bg != "" {
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", x, y, s.width*cellWidth, cellHeight, bg)
	}
	text := escape.Line(s.text)
	if strings.TrimSpace(text) == "" {
		return
	}
	text = strings.ReplaceAll(text, " ", "\u00a0") // several plain ones would become one
	extra := ""
	if s.bold {
		extra += ` font-weight="bold"`
	}
	if s.faint {
		extra += ` opacity="0.6"`
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" textLength="%d" fill="%s"%s>%s</text>`+"\n",
		x, y+cellHeight-5, s.width*cellWidth, or(fg, words), extra, html.EscapeString(text))
}

func or(colour, other string) string {
	if colour == "" {
		return other
	}
	return colour
}
