// Package trace carries the story of one connect through the layers that make
// it: each notes what it has just done on the context it was called with, and
// whoever began the connect reads along. Without a reader a note costs one
// context look-up.
//
//	ctx = trace.With(ctx, func(e trace.Event) { fmt.Println(e.Step, e.Detail) })
//	trace.Note(ctx, trace.RecordFound, "seq 3, asked 4 nodes")
package trace

import (
	"context"
	"fmt"
	"time"
)

// Step names a milestone of a connect.
type Step string

// The milestones, in the order in which an ICE connect passes them.
const (
	RecordFound    Step = "record found"    // the callee's record came from the DHT
	OfferSent      Step = "offer sent"      // nodes near the callee took the offer
	AnswerReceived Step = "answer received" // the callee's candidates are here
	PairSelected   Step = "ice pair"        // a candidate pair was nominated
	Secured        Step = "tls"             // mutual TLS has proven the callee
	LinkUp         Step = "link up"         // both multiplexers have said hello
	ChannelOpen    Step = "channel open"    // the callee accepted the channel
	AttemptFailed  Step = "attempt failed"  // one carrier or path gave up
)

// Event is one note: what happened, when, and in a few words how.
type Event struct {
	Step   Step
	At     time.Time
	Detail string
}

type key struct{}

// With returns a context whose notes go to read. read is called on the
// goroutine that notes, possibly on several at once: it must be quick and safe
// for that.
func With(ctx context.Context, read func(Event)) context.Context {
	return context.WithValue(ctx, key{}, read)
}

// Note tells the reader, if there is one. The detail is formatted only then.
func Note(ctx context.Context, step Step, format string, args ...any) {
	if read, ok := ctx.Value(key{}).(func(Event)); ok {
		read(Event{Step: step, At: time.Now(), Detail: fmt.Sprintf(format, args...)})
	}
}
