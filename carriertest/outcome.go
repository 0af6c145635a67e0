package carriertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"peerlink/channel"
	"peerlink/multiplex"
)

// outcome is what the programs at both ends of a channel were told.
type outcome struct {
	wrote int   // bytes for which Write has returned
	got   int   // bytes that were read
	read  error // what ended the reading
	heard error // what the writer heard then; nil: it does not listen
	end   error // what the ending call returned
}

// String says how much was read, the end that the reader saw, what the writer
// heard, and what the ending call returned.
func (o outcome) String() string {
	text := "whole, "
	if o.got < o.wrote {
		text = "cut, "
	}
	text += kind(o.read)
	if o.heard != nil {
		text += " | " + kind(o.heard)
	}
	if o.end != nil {
		text += " | end: " + kind(o.end)
	}
	return text
}

// summary counts outcomes by kind.
func summary(os []outcome) string {
	if len(os) == 1 {
		return os[0].String()
	}
	count := map[string]int{}
	for _, o := range os {
		count[o.String()]++
	}
	var parts []string
	for _, text := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d × %s", count[text], text))
	}
	return strings.Join(parts, "; ")
}

// errNotAccepted is the end of a channel that no program was given.
var errNotAccepted = errors.New("not accepted")

// kinds are errors in a word or two; the first that matches counts.
var kinds = []struct {
	err  error
	word string
}{
	{io.EOF, "EOF"},
	{errWrong, "wrong bytes"},
	{errNotAccepted, "not accepted"},
	{os.ErrDeadlineExceeded, "time is up"},
	{context.DeadlineExceeded, "time is up"},
	{context.Canceled, "time is up"},
	{multiplex.ErrDead, "dead"},
	{multiplex.ErrDeclined, "declined"},
	{net.ErrClosed, "closed"},
}

func kind(err error) string {
	if reset, ok := errors.AsType[*channel.ResetError](err); ok {
		return fmt.Sprintf("reset (%s)", reset.Code)
	}
	if _, ok := errors.AsType[*multiplex.GoingAwayError](err); ok {
		return "going away"
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.word
		}
	}
	return "link lost"
}

// hung reports whether only the cell's own bound has ended something.
func hung(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// judge returns what is wrong with the first outcome that is wrong; "": nothing.
func (w *way) judge(os []outcome) string {
	for _, o := range os {
		if fault := w.fault(o); fault != "" {
			return fault
		}
	}
	return ""
}

func (w *way) fault(o outcome) string {
	whole := o.got == o.wrote
	complete := whole && o.read == io.EOF
	what := fmt.Sprintf("%d of %d bytes have arrived, the reader saw %v, the writer heard %v", o.got, o.wrote, o.read, o.heard)
	switch {
	case hung(o.read) || hung(o.heard):
		return "a side was never told: " + what
	case errors.Is(o.read, errWrong):
		return "other bytes than were written: " + what
	case o.read == io.EOF && !w.clean:
		return "a clean end that the writer did not make: " + what
	case o.read == io.EOF && !whole:
		return "a clean end of fewer bytes: " + what
	case !whole && !w.cuts && o.end == nil:
		return "the call that ended says nothing of lost bytes: " + what
	case w.clean && !w.cuts && o.end == nil && !complete:
		return "the clean end was lost: " + what
	case o.heard == io.EOF && !complete:
		return "the writer heard only success: " + what
	}
	return ""
}
