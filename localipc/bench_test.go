package localipc

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"
)

// twoProcesses returns a stream to another process, which plays a role.
func twoProcesses(b *testing.B, role string) *Conn {
	b.Helper()
	dir := folder(b)
	alice, bob := newIdentity(b, "alice"), newIdentity(b, "bob")
	startHelper(b, role, encodeID(b, bob), helperDir+"="+dir)
	d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
	conn, _, err := d.Dial(context.Background(), bob.DeviceID())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn.(*Conn)
}

// BenchmarkThroughput writes to another process; memmove, one copy within this
// process, is the limit, and x-memmove how far from it the stream is.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"64B", 64}, {"4KiB", 4 << 10}, {"64KiB", 64 << 10}} {
		p, q := make([]byte, size.n), make([]byte, size.n)
		b.Run(size.name, func(b *testing.B) {
			c := twoProcesses(b, "sink")
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			c.CloseWrite()
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			stream := float64(b.Elapsed()) / float64(b.N)
			b.StopTimer()
			const copies = 100_000
			start := time.Now()
			for range copies {
				copy(q, p)
			}
			b.ReportMetric(float64(time.Since(start))/copies/stream, "x-memmove")
		})
	}
}

// BenchmarkRoundTrip sends 64 bytes to another process and back.
func BenchmarkRoundTrip(b *testing.B) {
	c := twoProcesses(b, "echo")
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
}

// BenchmarkDial proves both devices, both ends within one process.
func BenchmarkDial(b *testing.B) {
	dir := folder(b)
	l := listen(b, Config{Identity: newIdentity(b, "bob"), Dir: dir})
	d := &Dialer{Config: Config{Identity: newIdentity(b, "alice"), Dir: dir}}
	go func() {
		for {
			conn, _, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		conn, _, err := d.Dial(context.Background(), l.cfg.Identity.DeviceID())
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
}
