package main

import (
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"
)

// readTime is how long a question takes no answer after it was shown. A line that comes
// earlier was begun before the question could be read: it was meant for the question
// before it, or for a chat. It is longer than the reaction time of a person (0.3 s) and
// the last word of a question that was read already.
const readTime = time.Second

// prompt is the question at the end of a terminal: one at a time, and always the last
// that is there. Its methods may be called concurrently; they wait for the terminal.
type prompt struct {
	mu     sync.Mutex // of the terminal
	out    io.Writer
	text   string // the question that is shown; empty: there is none
	shown  time.Time
	answer chan<- string // has room for one
}

// show asks, and returns where the answer comes.
func (p *prompt) show(text string) <-chan string {
	answer := make(chan string, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.out, text)
	p.text, p.shown, p.answer = text, time.Now(), answer // the time at which it is there
	return answer
}

// end takes the question back: what is typed from now on is no answer to it. A note, if
// there is one, says why.
func (p *prompt) end(note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if note != "" && p.text != "" {
		_, _ = io.WriteString(p.out, "\n"+note+"\n")
	}
	p.text, p.answer = "", nil
}

// typed takes a line; false if nothing is asked. A line that comes too soon is dropped,
// and the question is shown again, with the same time to read it as before.
func (p *prompt) typed(line string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.text == "":
		return false
	case time.Since(p.shown) < readTime:
		fmt.Fprintf(p.out, "That line came before this question could be read, and does not count.\n%s", p.text)
		return true
	}
	p.answer <- line
	p.text, p.answer = "", nil
	return true
}

// beside returns a writer of whole lines for what else is on the terminal: they come
// above the question. Elsewhere, as in a file, they leave the question alone.
func (p *prompt) beside(w io.Writer) io.Writer {
	if !isTerminal(w) {
		return w
	}
	return above{p, w}
}

type above struct {
	p   *prompt
	out io.Writer
}

// Write writes b and shows the question again, if there is one.
func (a above) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.p.text == "" {
		return a.out.Write(b)
	}
	_, _ = io.WriteString(a.p.out, "\n")
	n, err := a.out.Write(b)
	_, _ = io.WriteString(a.p.out, a.p.text)
	return n, err
}

// frames is a writer for bars, which are drawn over themselves: not while there is a
// question, and after it below.
type frames struct {
	p     *prompt
	moved bool // something came below them
}

// overLast is how a frame begins that takes the place of the one before.
var overLast = regexp.MustCompile(`^\x1b\[\d+A\x1b\[J`)

// Write writes a frame.
func (f *frames) Write(b []byte) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	frame := b
	switch {
	case f.p.text != "":
		f.moved = true
		return len(b), nil
	case f.moved:
		f.moved = false
		frame = overLast.ReplaceAll(b, nil)
	}
	if _, err := f.p.out.Write(frame); err != nil {
		return 0, err
	}
	return len(b), nil
}
