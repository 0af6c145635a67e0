package multiplex_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"peerlink/channel"
	"peerlink/multiplex"
)

// benchLink runs a link over loopback TCP and TLS, and beside it the same
// connection raw.
func benchLink(b *testing.B) (client, server *multiplex.Socket, rawClient, rawServer net.Conn) {
	b.Helper()
	a1, b1, err := overTLS()
	if err != nil {
		b.Fatal(err)
	}
	a2, b2, err := overCryptoTLS()
	if err != nil {
		b.Fatal(err)
	}
	client, server = multiplex.Client(a1, multiplex.Config{}), multiplex.Server(b1, multiplex.Config{})
	b.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		_ = a2.Close()
		_ = b2.Close()
	})
	return client, server, a2, b2
}

func mustOpen(b *testing.B, client, server *multiplex.Socket) (net.Conn, net.Conn) {
	b.Helper()
	c, s, err := open(client, server, "bench://")
	if err != nil {
		b.Fatal(err)
	}
	return c, s
}

// pump times n writes of p, until the last byte has been read.
func pump(b *testing.B, w io.Writer, r io.Reader, p []byte, n int) time.Duration {
	b.Helper()
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for left := n * len(p); left > 0; {
			k, err := r.Read(buf)
			if left -= k; err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	start := time.Now()
	for range n {
		if _, err := w.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// BenchmarkThroughput writes through a channel, and reports how fast raw TLS is
// in the same minute (of/raw: 1 is as fast as raw).
func BenchmarkThroughput(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"64KiB", 64 << 10}, {"1KiB", 1 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			client, server, rc, rs := benchLink(b)
			cc, cs := mustOpen(b, client, server)
			p := make([]byte, c.size)
			const n = 256
			var ours, raw time.Duration
			b.SetBytes(int64(n * c.size))
			b.ReportAllocs()
			for b.Loop() {
				ours += pump(b, cc, cs, p, n)
				b.StopTimer()
				raw += pump(b, rc, rs, p, n)
				b.StartTimer()
			}
			b.ReportMetric(float64(raw)/float64(ours), "of/raw")
		})
	}
}

// pingPong times n round trips of p.
func pingPong(b *testing.B, x, y net.Conn, p []byte, n int) time.Duration {
	b.Helper()
	go func() {
		buf := make([]byte, len(p))
		for range n {
			if _, err := io.ReadFull(y, buf); err != nil {
				return
			}
			_, _ = y.Write(buf)
		}
	}()
	buf := make([]byte, len(p))
	start := time.Now()
	for range n {
		_, _ = x.Write(p)
		if _, err := io.ReadFull(x, buf); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}

// BenchmarkRoundTrip sends 64 bytes there and back.
func BenchmarkRoundTrip(b *testing.B) {
	client, server, rc, rs := benchLink(b)
	cc, cs := mustOpen(b, client, server)
	const n = 100
	p := make([]byte, 64)
	var ours, raw time.Duration
	var loops int
	b.ReportAllocs()
	for b.Loop() {
		ours += pingPong(b, cc, cs, p, n)
		b.StopTimer()
		raw += pingPong(b, rc, rs, p, n)
		loops++
		b.StartTimer()
	}
	b.ReportMetric(float64(ours.Microseconds())/float64(n*loops), "µs/trip")
	b.ReportMetric(float64(raw.Microseconds())/float64(n*loops), "raw-µs/trip")
	b.ReportMetric(float64(raw)/float64(ours), "of/raw")
}

// BenchmarkOpen opens a channel, sends a byte, reads one back and closes.
func BenchmarkOpen(b *testing.B) {
	client, server, _, _ := benchLink(b)
	go func() {
		for {
			r, err := server.Accept(context.Background())
			if err != nil {
				return
			}
			s, err := r.Accept()
			if err != nil {
				return
			}
			go func() {
				p := make([]byte, 1)
				_, _ = io.ReadFull(s, p)
				_, _ = s.Write(p)
				_ = s.Close()
			}()
		}
	}()
	for name, open := range map[string]func(context.Context, string) (*channel.Socket, error){"answered": client.Open, "early": client.OpenEarly} {
		b.Run(name, func(b *testing.B) {
			p := make([]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				c, err := open(context.Background(), "bench://")
				if err != nil {
					b.Fatal(err)
				}
				_, _ = c.Write(p)
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
			}
		})
	}
}

// BenchmarkEightChannels writes through eight channels at once.
func BenchmarkEightChannels(b *testing.B) {
	client, server, rc, rs := benchLink(b)
	var conns [8][2]net.Conn
	for i := range conns {
		conns[i][0], conns[i][1] = mustOpen(b, client, server)
	}
	p := make([]byte, 64<<10)
	const n = 64
	var ours, raw time.Duration
	b.SetBytes(int64(len(conns) * n * len(p)))
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() { pump(b, c[0], c[1], p, n) })
		}
		wg.Wait()
		ours += time.Since(start)
		b.StopTimer()
		raw += pump(b, rc, rs, p, n*len(conns))
		b.StartTimer()
	}
	b.ReportMetric(float64(raw)/float64(ours), "of/raw")
}
