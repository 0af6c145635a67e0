package tlssock

import (
	"io"
	"testing"
)

// BenchmarkHandshake makes both ends of a connection over loopback.
func BenchmarkHandshake(b *testing.B) {
	alice, bob := newIdentity(b, "alice"), newIdentity(b, "bob")
	b.ReportAllocs()
	for b.Loop() {
		c, s := link(b, alice, bob)
		s.NetConn().Close()
		c.NetConn().Close()
	}
}

// BenchmarkBulk sends 64 KiB writes through loopback TCP.
func BenchmarkBulk(b *testing.B) {
	caller, callee := link(b, newIdentity(b, "alice"), newIdentity(b, "bob"))
	go func() {
		io.Copy(io.Discard, callee)
		callee.Close()
	}()
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := caller.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
