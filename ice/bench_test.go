package ice

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"peerlink/tlssock"
)

func BenchmarkDial(b *testing.B) {
	for _, c := range []struct {
		name  string
		names []string
	}{{"tcp", []string{"tcp"}}, {"udp", []string{"udp"}}, {"both", nil}} {
		b.Run(c.name, func(b *testing.B) {
			x := newExchange()
			a, d := x.newDevice(b, "a", engines(c.names...)), x.newDevice(b, "b", engines(c.names...))
			b.ReportAllocs()
			for b.Loop() {
				ca, cb := connect(b, a, d)
				ca.Close()
				cb.Close()
			}
		})
	}
}

// rawTLS is what the TCP engine's stream is measured against.
func rawTLS(b *testing.B) (net.Conn, net.Conn) {
	a, c := newIdentity(b, "a"), newIdentity(b, "b")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	acceptc := make(chan net.Conn, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			s := tls.Server(conn, tlssock.Config{Identity: c}.ServerTLS())
			err = s.Handshake()
			acceptc <- s
		}
		if err != nil {
			close(acceptc)
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	s := tls.Client(conn, tlssock.Config{Identity: a}.ClientTLS(c.DeviceID()))
	if err := s.Handshake(); err != nil {
		b.Fatal(err)
	}
	return s, <-acceptc
}

// BenchmarkThroughput moves bytes one way and prints each engine's share of
// plain TLS over TCP in the same run.
func BenchmarkThroughput(b *testing.B) {
	rates := map[string]float64{}
	for _, name := range []string{"tls", engineTCP, engineUDP} {
		b.Run(name, func(b *testing.B) {
			var ca, cb net.Conn
			if name == "tls" {
				ca, cb = rawTLS(b)
			} else {
				x := newExchange()
				ca, cb = connect(b, x.newDevice(b, "a", engines(name)), x.newDevice(b, "b", engines(name)))
			}
			defer cb.Close()
			defer ca.Close()
			go io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{cb}, make([]byte, 128<<10))
			p := make([]byte, 128<<10)
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := ca.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			rates[name] = float64(b.N) * float64(len(p)) / b.Elapsed().Seconds()
			if base := rates["tls"]; base > 0 {
				b.ReportMetric(rates[name]/base, "of-tls")
			}
		})
	}
}
