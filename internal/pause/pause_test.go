package pause

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPauseEndsByTimeNewsOrContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		check := func(name string, err, want error, took time.Duration) {
			t.Helper()
			if since := time.Since(start); !errors.Is(err, want) || since != took {
				t.Errorf("%s: %v after %v, want %v after %v", name, err, since, want, took)
			}
			start = time.Now()
		}
		check("time", For(ctx, time.Hour), nil, time.Hour)
		check("no time", For(ctx, 0), nil, 0)
		check("less than no time", For(ctx, -time.Hour), nil, 0)

		news := make(chan int, 1)
		time.AfterFunc(time.Minute, func() { Tell(news, 1) })
		check("news", Until(ctx, time.Hour, news), nil, time.Minute)
		check("old news", Until(ctx, time.Hour, news), nil, time.Hour)
		close(news)
		check("closed", Until(ctx, time.Hour, news), nil, 0)

		time.AfterFunc(time.Second, func() { cancel(errors.New("why")) })
		check("context", For(ctx, time.Hour), context.Canceled, time.Second)
		check("context that has ended", For(ctx, time.Hour), context.Canceled, 0)
		check("context that has ended, no time", For(ctx, 0), context.Canceled, 0)
	})
}

func TestNewsThatWaitsStandsForMore(t *testing.T) {
	news := make(chan int, 1)
	Tell(news, 1)
	Tell(news, 2)
	if v := <-news; v != 1 || len(news) != 0 {
		t.Errorf("%d, and %d more; want 1 alone", v, len(news))
	}
}

func TestABellWakesAllThatWaitOnce(t *testing.T) {
	var b Bell
	b.Ring() // with no waiter: it is not kept for later
	first, second := b.Next(), b.Next()
	select {
	case <-first:
		t.Fatal("the ring before was kept")
	default:
	}
	b.Ring()
	<-first
	<-second
	select {
	case <-b.Next():
		t.Fatal("one ring was heard twice")
	default:
	}
}

func TestPausesDoubleUntilTheyAreLongest(t *testing.T) {
	b := Backoff(5*time.Millisecond, 30*time.Millisecond)
	for range 2 {
		for i, want := range []time.Duration{5, 10, 20, 30, 30, 30} {
			if got := b.NextBackOff(); got != want*time.Millisecond {
				t.Errorf("pause %d: %v, want %v", i, got, want*time.Millisecond)
			}
		}
		b.Reset()
	}
}
