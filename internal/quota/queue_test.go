package quota

import (
	"context"
	"testing"
)

func TestMembersPassTheStrangersInAQueue(t *testing.T) {
	q := NewQueue[int](2, 3)
	for i := range 100 {
		if q.PutStranger(i) != (i < 3) {
			t.Errorf("stranger %d", i)
		}
	}
	for i := range 3 {
		if q.Put(1000+i) != (i < 2) {
			t.Errorf("member %d", i)
		}
	}
	end := make(chan struct{})
	close(end)
	for _, want := range []int{1000, 1001, 0, 1, 2} {
		if v, ok := q.Take(t.Context(), end); !ok || v != want {
			t.Errorf("%d, %v, want %d", v, ok, want)
		}
	}
	if _, ok := q.Take(t.Context(), end); ok || q.Len() != 0 {
		t.Errorf("%d are left", q.Len())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := q.Take(ctx, nil); ok {
		t.Error("taken from nothing")
	}
}
