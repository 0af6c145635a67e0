package trace_test

import (
	"context"
	"fmt"

	"peerlink/internal/trace"
)

func Example() {
	ctx := trace.With(context.Background(), func(e trace.Event) { fmt.Printf("%s: %s\n", e.Step, e.Detail) })
	trace.Note(ctx, trace.OfferSent, "%d of %d nodes took it", 7, 8)
	trace.Note(context.Background(), trace.OfferSent, "nobody reads this")
	// Output: offer sent: 7 of 8 nodes took it
}
