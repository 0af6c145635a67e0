package dht

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// churnConfig is a device that limits nobody, for tests that send as fast as they can.
func churnConfig(t testing.TB, name string, boot *Node) Config {
	return Config{Identity: newIdentity(t, name), Bootstrap: boot.Addrs(), signalRate: 1000, senderRate: 1000, queueLen: 2000}
}

// Of 20 nodes four are killed at random times while a thousand signals go from
// one device to another; none is lost. The caller's bootstrap node may be among
// the dead.
//
// fault: E4, E5, E6
func TestNoSignalIsLostWhileAFifthOfTheNodesDies(t *testing.T) {
	const size, kills, signals = 20, 4, 1000
	nodes := startNodes(t, size)
	for _, n := range nodes {
		n.service.requests = requestRates(1 << 20)
	}
	alice, bob := start(t, churnConfig(t, "alice", nodes[0])), start(t, churnConfig(t, "bob", nodes[size-1]))
	ready(t, alice)
	ready(t, bob)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	victims := rnd.Perm(size)[:kills]
	dies := make(map[int][]int) // before which signal
	for _, v := range victims {
		at := signals/10 + rnd.IntN(signals*8/10)
		dies[at] = append(dies[at], v)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	got := make(chan []int)
	go func() {
		counts := make([]int, signals)
		defer func() { got <- counts }()
		for range signals {
			_, msg, err := bob.Receive(ctx)
			if err != nil {
				t.Errorf("receive: %v", err)
				return
			}
			counts[binary.BigEndian.Uint32(msg)]++
		}
	}()
	killed := make(chan struct{})
	pending := 0
	for i := range signals {
		for _, v := range dies[i] {
			pending++
			go func() { // the signals go on while it goes down
				_ = nodes[v].Close()
				killed <- struct{}{}
			}()
		}
		if err := alice.Send(ctx, bob.id(), binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Errorf("signal %d: %v", i, err)
		}
	}
	for range pending {
		<-killed
	}
	counts := <-got
	if i := slices.IndexFunc(counts, func(n int) bool { return n != 1 }); i >= 0 {
		t.Errorf("signal %d arrived %d times; bob %+v; alice %+v", i, counts[i], bob.Health(), alice.Health())
	}
}

// BenchmarkPutToPush measures, on a network of 20 nodes in one process, the time
// from Send with the record known to Receive; the median is what counts.
func BenchmarkPutToPush(b *testing.B) {
	nodes := startNodes(b, 20)
	for _, n := range nodes {
		n.service.requests = requestRates(1 << 20)
	}
	alice, bob := start(b, churnConfig(b, "alice", nodes[0])), start(b, churnConfig(b, "bob", nodes[19]))
	ready(b, alice)
	ready(b, bob)
	eventually(b, "eight subscriptions", func() bool { return bob.Health().Subscriptions == replication })
	msg := make([]byte, 2000)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if err := alice.Send(context.Background(), bob.id(), msg); err != nil {
			b.Fatal(err)
		}
		if _, _, err := bob.Receive(context.Background()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		b.StopTimer()
		eventually(b, "all copies", func() bool { return len(alice.sending) == 0 })
		b.StartTimer()
	}
	slices.Sort(took)
	ms := func(q int) float64 { return float64(took[(len(took)-1)*q/100]) / 1e6 }
	b.ReportMetric(ms(50), "p50-ms")
	b.ReportMetric(ms(90), "p90-ms")
	b.ReportMetric(0, "ns/op")
}
