package netwatch

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPollTellsOnlyOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := []string{"1 lo 127.0.0.1/8"}
		looks := 0
		look := func() []string {
			mu.Lock()
			defer mu.Unlock()
			looks++
			return slices.Clone(seen)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		news := make(chan struct{}, 1)
		go poll(ctx, time.Second, look, news)
		time.Sleep(10*time.Second + time.Millisecond)
		select {
		case <-news:
			t.Error("told of nothing")
		default:
		}
		mu.Lock()
		seen = append(seen, "2 eth0 192.0.2.7/24")
		mu.Unlock()
		began := time.Now()
		<-news
		if d := time.Since(began); d > time.Second {
			t.Errorf("told after %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		if looks != 12 {
			t.Errorf("looked %d times in eleven seconds", looks)
		}
	})
}

func TestChangesEndWithTheContextAndWithTheLoop(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for range Changes(ctx) {
	}
	if ctx.Err() == nil {
		t.Error("ended before its context")
	}
}

func TestAddressesAreSortedAndStable(t *testing.T) {
	a := addresses()
	if !slices.IsSorted(a) || !slices.Equal(a, addresses()) {
		t.Errorf("two looks differ, or are not sorted: %q", a)
	}
}
