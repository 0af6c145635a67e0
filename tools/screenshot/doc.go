// Screenshot draws a terminal's screen as an SVG picture.
//
//	tmux capture-pane -e -p | go run -C tools ./screenshot --title peerchat > chat.svg
//
// It reads lines with the escape sequences that tmux capture-pane -e writes:
// colours (of sixteen, of 256 and of 24 bits), bold, faint and reverse. Other
// sequences are left out. Each character keeps its column, whatever font the
// reader has.
//
// # Limits
//
// At most 400 columns and 200 lines.
package main
