package bench

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"
)

// way is how bytes go from this process to the far end's.
type way struct {
	carrier string // "": not at all, but copied within this process
	linked  bool   // through a channel
}

// memmove is the limit of all ways: one copy.
var memmove = way{}

// title names a way for people.
func (w way) title() string {
	name := map[string]string{
		"": "memmove", "unix": "Unix socket", "shm": "shared memory", "tcp": "TCP and TLS",
	}[w.carrier]
	if w.linked {
		return "channel over " + name
	}
	return name
}

// quantity is one of the figures that a way has.
type quantity int

const (
	gbps     quantity = iota // GB/s
	cpuPerGB                 // s/GB, both processes
	tripP50                  // µs
	tripP99                  // µs
	idleCPU                  // ms/s, both processes
	dialTime                 // ms
	quantities
)

// figures are those that a take has; the others are NaN.
type figures [quantities]float64

func noFigures() (f figures) {
	for q := range f {
		f[q] = math.NaN()
	}
	return f
}

// cell says which figure a row shows, and beside which of another way.
type cell struct {
	of     way
	what   quantity
	beside []way // none, or one
}

// apart is a measure between two processes.
type apart struct {
	take  func(l *lab, ctx context.Context, w way, d time.Duration) (figures, error)
	cells []cell // of the rows
}

// ways returns which ways the wanted rows need, in the order of the round.
func (a apart) ways(keep []bool, round int) []way {
	var ws []way
	for i, c := range a.cells {
		for _, w := range append([]way{c.of}, c.beside...) {
			if keep[i] && !slices.Contains(ws, w) {
				ws = append(ws, w)
			}
		}
	}
	first := round % len(ws)
	return slices.Concat(ws[first:], ws[:first])
}

// round takes each way's figures once, beginning with another way than the
// round before.
func (a apart) round(ctx context.Context, l *lab, keep []bool, d time.Duration, round int) ([]sample, error) {
	taken := map[way]figures{}
	for _, w := range a.ways(keep, round) {
		f, err := l.bounded(ctx, d, func(ctx context.Context) (figures, error) { return a.take(l, ctx, w, d) })
		if err != nil {
			return nil, err
		}
		taken[w] = f
	}
	samples := make([]sample, len(a.cells))
	for i, c := range a.cells {
		if samples[i] = alone(math.NaN()); !keep[i] {
			continue
		}
		samples[i].value = taken[c.of][c.what]
		if len(c.beside) > 0 {
			samples[i].baseline = taken[c.beside[0]][c.what]
		}
	}
	return samples, nil
}

// rowBetween makes a row and its cell. name is put behind the carrier's.
func rowBetween(name, title, unit string, what quantity, of way, beside ...way) (row, cell) {
	r := row{name: of.carrier + "/" + name, title: strings.TrimSpace(of.title() + ", " + title), unit: unit}
	if len(beside) > 0 {
		r.against = beside[0].title()
	}
	return r, cell{of: of, what: what, beside: beside}
}
