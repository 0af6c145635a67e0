package life

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCloseEndsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		var ended atomic.Int32
		for range 3 {
			if !g.Go(func(ctx context.Context) {
				<-ctx.Done()
				time.Sleep(time.Minute) // what cleaning up takes
				ended.Add(1)
			}) {
				t.Fatal("it did not begin")
			}
		}
		if !g.Enter() {
			t.Fatal("not let in")
		}
		go func() {
			<-g.Done()
			time.Sleep(time.Hour)
			ended.Add(1)
			g.Leave()
		}()
		start := time.Now()
		g.Close()
		if took := time.Since(start); took != time.Hour || ended.Load() != 4 {
			t.Errorf("%d have ended after %v, want 4 after an hour", ended.Load(), took)
		}
	})
}

func TestNothingBeginsAfterTheEnd(t *testing.T) {
	ended := &Group{}
	if !ended.End() || ended.End() {
		t.Error("not the first call alone ended it")
	}
	closed := &Group{}
	closed.Close()
	for name, g := range map[string]*Group{"ended": ended, "closed": closed} {
		if g.Go(func(context.Context) { t.Error("it ran") }) || g.Enter() {
			t.Errorf("%s: something began", name)
		}
		if !g.Ended() {
			t.Errorf("%s: it has not ended", name)
		}
		g.Close()
	}
}

func TestTheCauseIsTold(t *testing.T) {
	why := errors.New("why")
	var g Group
	ctx := g.Context()
	if ctx.Err() != nil || g.Ended() {
		t.Error("it ended before it began")
	}
	g.EndWith(why)
	g.EndWith(errors.New("later"))
	if context.Cause(ctx) != why {
		t.Errorf("%v, want %v", context.Cause(ctx), why)
	}
	var plain Group
	plain.End()
	if err := context.Cause(plain.Context()); err != context.Canceled {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// Close and many that begin meet: each either runs before Close has returned, or
// never.
func TestBeginningAndClosingMayMeet(t *testing.T) {
	for range 100 {
		var g Group
		var begun, ran atomic.Int32
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				if g.Go(func(context.Context) { ran.Add(1) }) {
					begun.Add(1)
				}
			})
		}
		g.Close()
		before := ran.Load()
		callers.Wait()
		if begun.Load() != before || ran.Load() != before {
			t.Fatalf("%d were begun, %d ran, %d of them before Close returned", begun.Load(), ran.Load(), before)
		}
	}
}
