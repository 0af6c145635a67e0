package journal

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink/internal/quota"
)

const (
	maxDevices, maxKinds = 1024, 256
	// toldEvery is how long what is left out is counted before its number is logged.
	toldEvery = time.Minute
	// others is the kind of all records for which there is no room in the count.
	others = "others"
)

// Handler passes on to another one as many records as its package says. Make one with
// NewHandler. Its methods may be called concurrently, and block as the other's do.
type Handler struct {
	next   slog.Handler
	device string // of the attributes that all records have
	*bounds
}

// bounds are what a Handler, and all that are made from it, have passed on.
type bounds struct {
	base   slog.Handler // gets what was left out
	device *quota.Rates[[2]string]
	kind   *quota.Rates[string]
	all    *rate.Limiter // of records that name a device
	own    *rate.Limiter // of the others

	mu    sync.Mutex
	left  map[string]int // what was left out of each kind
	since time.Time      // the first of these
}

// NewHandler returns a handler before another one.
func NewHandler(next slog.Handler) *Handler {
	return &Handler{next: next, bounds: &bounds{
		base:   next,
		device: quota.NewRates[[2]string](maxDevices, rate.Every(10*time.Second), 10),
		kind:   quota.NewRates[string](maxKinds, 2, 200),
		all:    rate.NewLimiter(10, 1000),
		own:    rate.NewLimiter(10, 1000),
		left:   map[string]int{},
	}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.device, h.bounds}
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	device := h.device
	for _, a := range attrs {
		device = deviceOf(a, device)
	}
	return &Handler{h.next.WithAttrs(attrs), device, h.bounds}
}

// Handle implements slog.Handler. A record that is left out is no error.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	device := h.device
	r.Attrs(func(a slog.Attr) bool {
		device = deviceOf(a, device)
		return true
	})
	all := h.all
	if device == "" {
		all = h.own
	}
	passes := h.bounds.device.Allow([2]string{r.Message, device}, r.Time) && h.kind.Allow(r.Message, r.Time) && all.AllowN(r.Time, 1)
	h.tell(ctx, h.count(r, passes), r.Time)
	if !passes {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// deviceOf returns the device that an attribute names, or was.
func deviceOf(a slog.Attr, was string) string {
	switch a.Key {
	case "device", "peer", "from", "to", "node":
		return fmt.Sprintf("%.100s", a.Value)
	}
	return was
}

// count notes a record that does not pass, and returns what is to be told now.
func (b *bounds) count(r slog.Record, passes bool) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	var told map[string]int
	if len(b.left) > 0 && r.Time.Sub(b.since) >= toldEvery {
		told, b.left = b.left, map[string]int{}
	}
	if passes {
		return told
	}
	if len(b.left) == 0 {
		b.since = r.Time
	}
	kind := r.Message
	if _, known := b.left[kind]; !known && len(b.left) >= maxKinds {
		kind = others
	}
	b.left[kind]++
	return told
}

// tell logs how many records were left out.
func (b *bounds) tell(ctx context.Context, left map[string]int, now time.Time) {
	for _, kind := range slices.Sorted(maps.Keys(left)) {
		r := slog.NewRecord(now, slog.LevelWarn, fmt.Sprintf("%d more of this kind", left[kind]), 0)
		r.AddAttrs(slog.String("kind", kind))
		_ = b.base.Handle(ctx, r) // as a log's errors are
	}
}

// Flush logs what was left out and not told yet.
func (h *Handler) Flush() {
	h.mu.Lock()
	left := h.left
	h.left = map[string]int{}
	h.mu.Unlock()
	h.tell(context.Background(), left, time.Now())
}
