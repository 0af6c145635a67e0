package dht

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkReady measures from Start of a client until it can be called.
func BenchmarkReady(b *testing.B) {
	for _, size := range []int{1, 12} {
		b.Run(fmt.Sprintf("nodes=%d", size), func(b *testing.B) {
			boot := startNodes(b, size)[0]
			id := newIdentity(b, "bench")
			b.ReportAllocs()
			for b.Loop() {
				n, err := Start(context.Background(), Config{Identity: id, Bootstrap: boot.Addrs()})
				if err != nil {
					b.Fatal(err)
				}
				ready(b, n)
				b.StopTimer()
				if err := n.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLookup measures a look-up of a record that is not cached.
func BenchmarkLookup(b *testing.B) {
	for _, size := range []int{1, 12} {
		b.Run(fmt.Sprintf("nodes=%d", size), func(b *testing.B) {
			boot := startNodes(b, size)[0]
			alice, bob := device(b, "alice", boot), device(b, "bob", boot)
			b.ReportAllocs()
			for b.Loop() {
				alice.cache.Purge()
				if _, err := alice.Lookup(context.Background(), bob.id()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignalCold measures look-up, Send and Receive; BenchmarkSignalWarm
// leaves the look-up out.
func BenchmarkSignalCold(b *testing.B) { benchmarkSignal(b, true) }

// BenchmarkSignalWarm measures from Send to Receive with the record known.
func BenchmarkSignalWarm(b *testing.B) { benchmarkSignal(b, false) }

func benchmarkSignal(b *testing.B, cold bool) {
	for _, size := range []int{1, 12} {
		b.Run(fmt.Sprintf("nodes=%d", size), func(b *testing.B) {
			unlimited := func(name string, boot *Node) *Node {
				n := start(b, Config{Identity: newIdentity(b, name), Bootstrap: boot.Addrs(), signalRate: 1000, senderRate: 1000})
				ready(b, n)
				return n
			}
			nodes := startNodes(b, size)
			for _, n := range nodes {
				n.service.requests = requestRates(1 << 20)
			}
			alice, bob := unlimited("alice", nodes[0]), unlimited("bob", nodes[0])
			msg := make([]byte, 2000)
			b.ReportAllocs()
			for b.Loop() {
				if cold {
					alice.cache.Purge()
				}
				if err := alice.Send(context.Background(), bob.id(), msg); err != nil {
					b.Fatal(err)
				}
				if _, _, err := bob.Receive(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignalCrypto measures what a signal costs its recipient at least.
func BenchmarkSignalCrypto(b *testing.B) {
	alice, bob := newIdentity(b, "alice"), newIdentity(b, "bob")
	in := newTestInbox(b, bob, nil)
	var sealed [][]byte
	for i := range 100 {
		sealed = append(sealed, sealedFor(b, alice, bob.DeviceID(), bob.SealingKey(), byte(i), in.now()))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		plain, err := openSignal(bob, sealed[i%len(sealed)])
		if err != nil {
			b.Fatal(err)
		}
		s, err := parseSignal(plain)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.verify(in.now()); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
