package parcel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/tlssock"
)

// limited is a connection that sends so many bytes a second.
type limited struct {
	net.Conn
	l *rate.Limiter
}

func (c limited) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), c.l.Burst())
		_ = c.l.WaitN(context.Background(), k)
		k, err = c.Conn.Write(p[:k])
		if n += k; err != nil {
			return n, err
		}
		p = p[k:]
	}
	return n, nil
}

// link is two multiplexed sockets over mutual TLS over loopback TCP, as a link
// has them. limit is in bytes a second; 0: none.
func link(b *testing.B, limit float64) (near, there *multiplex.Socket) {
	b.Helper()
	ctx := b.Context()
	caller, err := identity.Generate("caller")
	if err != nil {
		b.Fatal(err)
	}
	callee, err := identity.Generate("callee")
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	farc := make(chan *tlssock.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			s, _ := tlssock.Server(ctx, c, callee, nil)
			farc <- s
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	if limit > 0 {
		c = limited{c, rate.NewLimiter(rate.Limit(limit), 64<<10)}
	}
	s, err := tlssock.Client(ctx, c, caller, callee.DeviceID())
	if err != nil {
		b.Fatal(err)
	}
	near, there = multiplex.Client(s, multiplex.Config{}), multiplex.Server(<-farc, multiplex.Config{})
	b.Cleanup(func() { near.Close(); there.Close() })
	return near, there
}

// channels opens a channel and hands its far end to serve.
func channels(b *testing.B, near, there *multiplex.Socket, serve func(net.Conn)) (net.Conn, chan struct{}) {
	b.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := there.Accept(b.Context())
		if err != nil {
			return
		}
		if c, err := r.Accept(); err == nil {
			serve(c)
		}
	}()
	c, err := near.Open(b.Context(), Scheme)
	if err != nil {
		b.Fatal(err)
	}
	return c, done
}

// BenchmarkRatio sends a file, and in the same run the same bytes over a bare
// channel of the same link: from memory, dropped at the far end, and from the file
// into a synced file there. "ratio" and "of-copy" are the file's speed against these.
func BenchmarkRatio(b *testing.B) {
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = os.TempDir()
	}
	for _, c := range []struct {
		name  string
		limit float64
		size  int64
		disk  string
	}{
		{"1Gbit", 125e6, 128 << 20, memory},
		{"1Gbit-disk", 125e6, 128 << 20, os.TempDir()},
		{"2.5Gbit", 312e6, 256 << 20, memory},
		{"unlimited", 0, 512 << 20, memory},
		{"unlimited-disk", 0, 512 << 20, os.TempDir()},
	} {
		b.Run(c.name, func(b *testing.B) {
			near, there := link(b, c.limit)
			dir, err := os.MkdirTemp(c.disk, "parcel")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			content := random(1 << 20)
			source, err := os.Create(filepath.Join(dir, "source"))
			if err != nil {
				b.Fatal(err)
			}
			for at := int64(0); at < c.size; at += 1 << 20 {
				content[0]++
				_, _ = source.Write(content)
			}
			source.Close()
			var bare, copied, sent time.Duration
			for b.Loop() {
				bare += sendBare(b, near, there, c.size)
				copied += sendCopy(b, near, there, dir)
				sent += sendFile(b, near, there, dir)
			}
			b.ReportMetric(float64(bare)/float64(sent), "ratio")
			b.ReportMetric(float64(copied)/float64(sent), "of-copy")
			b.ReportMetric(float64(c.size)*float64(b.N)/1e6/copied.Seconds(), "copyMB/s")
			b.ReportMetric(float64(c.size)*float64(b.N)/1e6/sent.Seconds(), "MB/s")
			b.ReportMetric(float64(c.size)*float64(b.N)/1e6/bare.Seconds(), "bareMB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func sendBare(b *testing.B, near, there *multiplex.Socket, size int64) time.Duration {
	b.Helper()
	began := time.Now()
	c, done := channels(b, near, there, func(c net.Conn) {
		buf := make([]byte, 1<<20)
		for left := size; left > 0; {
			n, err := c.Read(buf)
			if left -= int64(n); err != nil {
				return
			}
		}
		c.Close()
	})
	buf := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(buf)) {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_, _ = io.Copy(io.Discard, c)
	<-done
	return time.Since(began)
}

// sendCopy sends the source file as it is, and nothing looks at its content.
func sendCopy(b *testing.B, near, there *multiplex.Socket, dir string) time.Duration {
	b.Helper()
	in, err := os.Open(filepath.Join(dir, "source"))
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	to := filepath.Join(dir, "copy")
	defer os.Remove(to)
	began := time.Now()
	c, done := channels(b, near, there, func(c net.Conn) {
		defer c.Close()
		out, err := os.Create(to)
		if err != nil {
			return
		}
		defer out.Close()
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{c}, make([]byte, 256<<10)); err == nil {
			_ = out.Sync()
		}
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{in}, make([]byte, 256<<10)); err != nil {
		b.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c)
	<-done
	return time.Since(began)
}

func sendFile(b *testing.B, near, there *multiplex.Socket, dir string) time.Duration {
	b.Helper()
	folder, err := inbox.Open(filepath.Join(dir, "received"))
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(filepath.Join(dir, "received"))
	defer folder.Close()
	r := NewReceiver(Config{Folder: folder})
	var done chan struct{}
	began := time.Now()
	sum, err := Send(b.Context(), SendConfig{Patience: -1, Open: func(context.Context, string) (c net.Conn, err error) {
		c, done = channels(b, near, there, func(c net.Conn) { _, _ = r.Serve(context.Background(), c, alice, nil) })
		return c, nil
	}}, filepath.Join(dir, "source"))
	took := time.Since(began)
	if err != nil || sum.Kept != 1 {
		b.Fatal(sum, err)
	}
	<-done
	return took
}

// BenchmarkSmallFiles is how many files of 1 KiB a second are on the disk, synced
// and named: of 10 000 in 100 folders.
func BenchmarkSmallFiles(b *testing.B) {
	near, there := link(b, 0)
	dir := b.TempDir()
	const n = 10_000
	content := random(1 << 10)
	for i := range n {
		name := filepath.Join(dir, "source", strconv.Itoa(i%100), strconv.Itoa(i))
		binary.BigEndian.PutUint64(content, uint64(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, content, 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Duration(0)
	for b.Loop() {
		folder, err := inbox.Open(filepath.Join(dir, "received"))
		if err != nil {
			b.Fatal(err)
		}
		r := NewReceiver(Config{Folder: folder})
		var done chan struct{}
		began := time.Now()
		sum, err := Send(b.Context(), SendConfig{Patience: -1, Open: func(context.Context, string) (c net.Conn, err error) {
			c, done = channels(b, near, there, func(c net.Conn) { _, _ = r.Serve(context.Background(), c, alice, nil) })
			return c, nil
		}}, filepath.Join(dir, "source"))
		took += time.Since(began)
		if err != nil {
			b.Fatal(sum, err)
		}
		<-done
		folder.Close()
		os.RemoveAll(filepath.Join(dir, "received"))
	}
	b.ReportMetric(n*float64(b.N)/took.Seconds(), "files/s")
}
