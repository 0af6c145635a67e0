package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/cmd/peerchat/internal/files/parcel"
)

// An answer to a question that has just gone is none to the question in its place, be it
// that its line was begun before.
func TestAnAnswerIsNotTakenForTheNextQuestion(t *testing.T) {
	path := t.TempDir() + "/x"
	write(t, path, 0o600)
	a := newAsking(t)
	first, leave := context.WithCancel(t.Context())
	gone := a.send(first, parcel.Peer{ID: "11111111"}, path)
	if q := a.question(); !strings.Contains(q, "11111111") {
		t.Fatalf("asked first: %q", q)
	}
	sent := a.send(t.Context(), parcel.Peer{ID: "22222222"}, path)
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the first one: %v", err)
	}
	if q := a.question(); !strings.Contains(q, "The question is over") {
		t.Errorf("of the first one it says %q", q)
	}
	if q := a.question(); !strings.Contains(q, "22222222") {
		t.Fatalf("asked next: %q", q)
	}
	const hour = time.Hour // in which a slow machine gets to the line below
	a.later(-hour)
	said := make(chan bool, 1)
	go func() { said <- a.c.prompt.typed("y") }()
	if q := a.question(); !strings.Contains(q, "does not count") || !strings.Contains(q, "22222222") {
		t.Errorf("after a line at once it says %q", q)
	}
	if !<-said {
		t.Error("the line is taken for a message")
	}
	select {
	case err := <-sent:
		t.Errorf("the question ended with %v", err)
	default:
	}
	a.later(hour + readTime)
	a.c.prompt.typed("n")
	if err := <-sent; !errors.Is(err, parcel.ErrRefused) {
		t.Errorf("the second one: %v", err)
	}
}

func TestAQuestionTakesItsAnswerAfterTheTimeToReadIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := &prompt{out: &out}
		if p.typed("y") {
			t.Error("an answer to nothing")
		}
		answer := p.show("take x? ")
		for range 2 {
			time.Sleep(readTime/2 - 1) // of the bubble's time
			if !p.typed("y") || len(answer) != 0 {
				t.Errorf("a line that came too soon is an answer; %q", &out)
			}
		}
		time.Sleep(2 * time.Nanosecond)
		if !p.typed("n") || <-answer != "n" {
			t.Error("the answer is not taken")
		}
		if p.typed("y") {
			t.Error("the question has two answers")
		}
		answer = p.show("take y? ")
		p.end("over")
		if p.typed("y") || len(answer) != 0 || strings.Count(out.String(), "take y? ") != 1 || !strings.HasSuffix(out.String(), "\nover\n") {
			t.Errorf("a question that is over takes an answer: %q", &out)
		}
	})
}

// What else comes onto the terminal leaves the question the last on it.
func TestTheQuestionStaysTheLastOnTheTerminal(t *testing.T) {
	var out strings.Builder
	p := &prompt{out: &out}
	lines, bars := above{p, &out}, &frames{p: p}
	says := func(want string) {
		t.Helper()
		if got := out.String(); got != want {
			t.Errorf("the terminal has %q, want %q", got, want)
		}
		out.Reset()
	}
	_, _ = io.WriteString(lines, "a line\n")
	_, _ = io.WriteString(bars, "bar 1\n")
	_, _ = io.WriteString(bars, "\x1b[1A\x1b[Jbar 2\n")
	says("a line\nbar 1\n\x1b[1A\x1b[Jbar 2\n")
	p.show("take it? ")
	_, _ = io.WriteString(lines, "another\n")
	_, _ = io.WriteString(bars, "\x1b[1A\x1b[Jbar 3\n")
	says("take it? \nanother\ntake it? ")
	p.end("")
	_, _ = io.WriteString(bars, "\x1b[1A\x1b[Jbar 4\n")
	_, _ = io.WriteString(bars, "\x1b[1A\x1b[Jbar 5\n")
	says("bar 4\n\x1b[1A\x1b[Jbar 5\n")
	if p.beside(&out) != io.Writer(&out) {
		t.Error("a file has the question too")
	}
}
