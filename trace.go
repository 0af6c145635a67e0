package peerlink

import (
	"context"

	"peerlink/internal/trace"
)

// TraceEvent is a milestone of a connect: Step (“record found”, “offer sent”,
// “answer received”, “ice pair”, “tls”, “link up”, “channel open”, “attempt
// failed”), the time, and a few words.
type TraceEvent = trace.Event

// WithTrace returns a context whose ConnectDevice tells read about each
// milestone. read is called from several goroutines and must be quick. Callers
// that join a negotiation under way hear only of their own channel.
func WithTrace(ctx context.Context, read func(TraceEvent)) context.Context {
	return trace.With(ctx, read)
}
