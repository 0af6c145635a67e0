package trace

import (
	"context"
	"testing"
)

// What a tally says grows with what it counts; without one nothing happens.
func TestTallySaysHowASignalFared(t *testing.T) {
	if none := TallyOf(context.Background()); none.String() != "" || none.Through() != "" {
		t.Errorf("without a tally: %q through %q", none, none.Through())
	}
	var tally Tally
	c := TallyOf(WithTally(context.Background(), &tally))
	for _, step := range []struct {
		count func()
		want  string
	}{
		{func() {}, ""},
		{func() { c.Asked("the DHT") }, "1 node asked, none took the call"},
		{func() { c.Asked("the DHT"); c.Asked("the DHT") }, "3 nodes asked, none took the call"},
		{func() { c.Took(false) }, "3 nodes asked, 1 took the call, but the device listens at none of them: it is offline, or has just moved"},
		{func() { c.Took(true) }, "3 nodes asked, 2 took the call, 1 passed it on to the device"},
	} {
		step.count()
		if got := tally.String(); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
	if tally.Through() != "the DHT" {
		t.Errorf("through %q", tally.Through())
	}
}
