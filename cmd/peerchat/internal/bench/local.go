package bench

import (
	"context"
	"time"
)

// The sizes of writes between two processes.
var writeSizes = []struct {
	name, title string
	n           int
}{
	{"64B", "64 bytes", 64},
	{"4KiB", "4 KiB", 4 << 10},
	{"64KiB", "64 KiB", 64 << 10},
}

// betweenProcesses are the rows over a carrier whose far end is a process of its
// own. Baselines: memmove for a carrier, the carrier for its channels, and for
// shared memory what it is to be better than.
func betweenProcesses(carrier string) []Measure {
	var ms []Measure
	for _, size := range writeSizes {
		ms = append(ms, writesOf(carrier, size.name, size.title, size.n))
	}
	return append(ms, tripsOver(carrier), idleOver(carrier), dialsOf(carrier))
}

// table gathers the rows of one measure.
type table struct {
	rows  []row
	cells []cell
}

func (t *table) add(name, title, unit string, what quantity, of way, beside ...way) {
	r, c := rowBetween(name, title, unit, what, of, beside...)
	t.rows, t.cells = append(t.rows, r), append(t.cells, c)
}

func (t *table) measure(take func(*lab, context.Context, way, time.Duration) (figures, error)) Measure {
	return Measure{rows: t.rows, apart: &apart{take: take, cells: t.cells}}
}

// pairOf returns both ways over a carrier.
func pairOf(carrier string) (raw, channel way) { return way{carrier, false}, way{carrier, true} }

func writesOf(carrier, name, size string, n int) Measure {
	raw, channel := pairOf(carrier)
	var t table
	t.add("raw-"+name, "writes of "+size, "GB/s", gbps, raw, memmove)
	t.add("channel-"+name, "writes of "+size, "GB/s", gbps, channel, raw)
	t.add("raw-cpu-"+name, "CPU time of both processes, writes of "+size, "s/GB", cpuPerGB, raw, memmove)
	t.add("channel-cpu-"+name, "CPU time of both processes, writes of "+size, "s/GB", cpuPerGB, channel, raw)
	if carrier == "shm" {
		t.add("raw-"+name+"-unix", "writes of "+size, "GB/s", gbps, raw, way{"unix", false})
		t.add("channel-"+name+"-tcp", "writes of "+size, "GB/s", gbps, channel, way{"tcp", true})
	}
	return t.measure(func(l *lab, ctx context.Context, w way, d time.Duration) (figures, error) {
		if w == memmove {
			return moveFor(ctx, n, d)
		}
		return l.writes(ctx, w, n, d)
	})
}

func tripsOver(carrier string) Measure {
	raw, channel := pairOf(carrier)
	beside := func(w way) []way {
		switch {
		case carrier == "shm":
			return []way{{"unix", false}}
		case w.linked:
			return []way{raw}
		}
		return nil
	}
	var t table
	for _, w := range []way{raw, channel} {
		kind := map[bool]string{false: "raw", true: "channel"}[w.linked]
		t.add(kind+"-trip-p50", "round trip of 64 bytes, median", "µs", tripP50, w, beside(w)...)
		t.add(kind+"-trip-p99", "round trip of 64 bytes, 99 of 100", "µs", tripP99, w, beside(w)...)
	}
	return t.measure((*lab).trips)
}

func idleOver(carrier string) Measure {
	raw, channel := pairOf(carrier)
	beside := func(linked bool) []way {
		if carrier == "shm" {
			return []way{{"unix", linked}}
		}
		return nil
	}
	var t table
	t.add("raw-idle", "CPU time of 200 idle connections, both processes", "ms/s", idleCPU, raw, beside(false)...)
	t.add("channel-idle", "CPU time of 200 idle links, a beacon each 250 ms, both processes", "ms/s", idleCPU, channel, beside(true)...)
	return t.measure(idleTake(idleConns, idleTime))
}

// idleTake watches n idle connections, for least at least.
func idleTake(n int, least time.Duration) func(*lab, context.Context, way, time.Duration) (figures, error) {
	return func(l *lab, ctx context.Context, w way, d time.Duration) (figures, error) {
		return l.idle(ctx, w, n, max(d, least))
	}
}

func dialsOf(carrier string) Measure {
	raw, _ := pairOf(carrier)
	var t table
	if carrier == "shm" {
		t.add("dial", "a connection with both proofs, median", "ms", dialTime, raw, way{"unix", false})
	} else {
		t.add("dial", "a connection with both proofs, median", "ms", dialTime, raw)
	}
	return t.measure((*lab).dials)
}
