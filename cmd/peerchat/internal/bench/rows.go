package bench

import (
	"context"
	"time"
)

// tcpMeasures are the rows over TCP and TLS, in the order of the table.
func tcpMeasures() []Measure {
	const raw, own = "raw TLS", "the same channel alone"
	type run = func(context.Context, *pair, time.Duration) ([]sample, error)
	write := func(size int) run {
		return func(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
			return speed(ctx, p, d, size)
		}
	}
	stall := func(readers int) run {
		return func(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
			return stalled(ctx, p, d, readers)
		}
	}
	return []Measure{
		{ours: bulk, raw: bulk, rows: []row{
			{name: "tcp/write-64KiB", title: "one channel, writes of 64 KiB", unit: "MB/s", against: raw},
			{name: "tcp/cpu", title: "CPU time, both ends, writes of 64 KiB", unit: "s/GB", against: raw},
		}},
		{ours: write(1 << 10), raw: write(1 << 10), rows: []row{
			{name: "tcp/write-1KiB", title: "one channel, writes of 1 KiB", unit: "MB/s", against: raw},
		}},
		{ours: eight, raw: write(64 << 10), rows: []row{
			{name: "tcp/eight", title: "eight channels at once, sum", unit: "MB/s", against: raw + ", one connection"},
			{name: "tcp/eight-slowest", title: "eight channels at once, the slowest", unit: "MB/s", against: "the mean of the eight"},
		}},
		{ours: roundTrips, raw: roundTrips, rows: []row{
			{name: "tcp/trip-p50", title: "round trip of 64 bytes, median", unit: "µs", against: raw},
			{name: "tcp/trip-p99", title: "round trip of 64 bytes, 99 of 100", unit: "µs", against: raw},
			{name: "tcp/trip-allocs", title: "allocations per round trip beyond raw TLS's", unit: "allocs", against: raw, beyond: true},
		}},
		{ours: opens, rows: []row{
			{name: "tcp/open", title: "open a channel and get its first byte back, median", unit: "µs"},
		}},
		{ours: openRate, rows: []row{
			{name: "tcp/open-rate", title: "opened, echoed and closed, 64 openers", unit: "1/s"},
		}},
		{ours: idle, rows: []row{
			{name: "tcp/idle", title: "memory per idle channel, both ends", unit: "B"},
		}},
		{ours: beside, raw: besideRaw, rows: []row{
			{name: "tcp/beside-p50", title: "round trip of 64 bytes beside bulk, median", unit: "µs", against: raw + ", two connections"},
			{name: "tcp/beside-p99", title: "round trip of 64 bytes beside bulk, 99 of 100", unit: "µs", against: raw + ", two connections"},
			{name: "tcp/beside-bulk", title: "the bulk beside those round trips", unit: "MB/s", against: own},
		}},
		{ours: stall(1), rows: []row{
			{name: "tcp/stalled-1", title: "another channel while 1 reader stalls", unit: "MB/s", against: own},
			{name: "tcp/stalled-1-heap", title: "memory grown with 1 stalled reader, both ends", unit: "MiB"},
		}},
		{ours: stall(64), rows: []row{
			{name: "tcp/stalled-64", title: "another channel while 64 readers stall", unit: "MB/s", against: own},
			{name: "tcp/stalled-64-heap", title: "memory grown with 64 stalled readers, both ends", unit: "MiB"},
		}},
	}
}
