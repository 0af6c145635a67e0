//go:build linux || darwin

package shm

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"peerlink/identity"
)

var benchSizes = []struct {
	name string
	n    int
}{{"64B", 64}, {"4KiB", 4 << 10}, {"64KiB", 64 << 10}}

// benchStream is one of both carriers to another process.
type benchStream interface {
	net.Conn
	CloseWrite() error
}

// other connects to another process, over the plain Unix socket or shared memory.
func other(b *testing.B, carrier, role string, cfg Config) benchStream {
	b.Helper()
	loc := newLocal(b)
	startHelper(b, carrier+" "+role, loc.path)
	raw, _, err := loc.AcceptUnix(b.Context(), Service)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { raw.Close() })
	if carrier == "unix" {
		return raw
	}
	if cfg, err = cfg.withDefaults(); err != nil {
		b.Fatal(err)
	}
	c, err := cfg.ask(context.Background(), raw, identity.Peer{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// finish waits until the sink has read all.
func finish(b *testing.B, c benchStream) {
	b.Helper()
	if err := c.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkThroughput writes to another process, over shared memory and over the
// plain Unix socket; memmove, one copy within this process, is the limit.
func BenchmarkThroughput(b *testing.B) {
	for _, carrier := range []string{"shm", "unix"} {
		for _, size := range benchSizes {
			b.Run(carrier+"/"+size.name, func(b *testing.B) {
				c := other(b, carrier, "sink", Config{})
				p := make([]byte, size.n)
				b.SetBytes(int64(size.n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				finish(b, c)
			})
		}
	}
	for _, size := range benchSizes {
		b.Run("memmove/"+size.name, func(b *testing.B) {
			p, q := make([]byte, size.n), make([]byte, size.n)
			b.SetBytes(int64(size.n))
			for b.Loop() {
				copy(q, p)
			}
		})
	}
}

// BenchmarkRegion shows what the size of the region is worth.
func BenchmarkRegion(b *testing.B) {
	for _, size := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			c := other(b, "shm", "sink", Config{RegionSize: size})
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			finish(b, c)
		})
	}
}

// BenchmarkRoundTrip sends 64 bytes to another process and back.
func BenchmarkRoundTrip(b *testing.B) {
	for _, carrier := range []string{"shm", "unix"} {
		b.Run(carrier, func(b *testing.B) {
			c := other(b, carrier, "echo", Config{})
			var times []time.Duration
			p := make([]byte, 64)
			for b.Loop() {
				start := time.Now()
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
		})
	}
}

// BenchmarkRatios measures 64 KiB writes over shared memory, over the plain
// Unix socket, and memmove, in turns within one run, and prints how shared
// memory stands to both: the medians of five turns of 0.2 s.
func BenchmarkRatios(b *testing.B) {
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	over := func(c benchStream) func() error {
		return func() error { _, err := c.Write(p); return err }
	}
	run := map[string]func() error{
		"shm":     over(other(b, "shm", "sink", Config{})),
		"unix":    over(other(b, "unix", "sink", Config{})),
		"memmove": func() error { copy(q, p); return nil },
	}
	speeds := map[string][]float64{}
	for b.Loop() {
		for range 5 {
			for name, write := range run {
				n, start := 0, time.Now()
				for time.Since(start) < 200*time.Millisecond {
					for range 16 {
						if err := write(); err != nil {
							b.Fatal(err)
						}
						n += len(p)
					}
				}
				speeds[name] = append(speeds[name], float64(n)/time.Since(start).Seconds()/1e9)
			}
		}
	}
	median := func(name string) float64 {
		s := slices.Sorted(slices.Values(speeds[name]))
		return s[len(s)/2]
	}
	for name := range run {
		b.ReportMetric(median(name), name+"-GB/s")
	}
	b.ReportMetric(median("shm")/median("unix"), "shm/unix")
	b.ReportMetric(median("shm")/median("memmove"), "shm/memmove")
	b.ReportMetric(0, "ns/op")
}
