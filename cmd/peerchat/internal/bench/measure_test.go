package bench

import (
	"context"
	"errors"
	"math"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// all returns every measure.
func all(t *testing.T) []Measure {
	measures, err := Select(Carriers(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return measures
}

func TestEveryRowIsMeasured(t *testing.T) {
	for _, m := range all(t) {
		cfg := Config{Time: 10 * time.Millisecond, Rounds: 2, FarEnd: otherProcess}
		if m.apart != nil {
			cfg.Rounds = 1
		}
		if strings.HasSuffix(m.Names()[0], "-idle") { // 200 connections take half a minute under the race detector
			m.apart = &apart{take: idleTake(10, 0), cells: m.apart.cells}
		}
		rows, err := m.Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		names := m.Names()
		if runtime.GOOS == "windows" {
			names = slices.DeleteFunc(names, func(s string) bool { return strings.Contains(s, "cpu") || strings.Contains(s, "idle") })
		}
		var got []string
		for _, r := range rows {
			got = append(got, r.Name)
			t.Logf("%-20s %10.2f %-6s of %10.2f (%s): %.2f", r.Name, r.Value, r.Unit, r.Baseline, r.Against, r.Ratio)
			idle := strings.HasSuffix(r.Name, "-idle") // which may take no time at all
			if !strings.HasSuffix(r.Name, "-allocs") && !idle && !(r.Value > 0) {
				t.Errorf("%s is %v %s", r.Name, r.Value, r.Unit)
			}
			if has := !math.IsNaN(r.Baseline); has != (r.Against != "") {
				t.Errorf("%s: baseline %v against %q", r.Name, r.Baseline, r.Against)
			}
			if has := r.Ratio > 0; !idle && has != (r.Against != "" && !strings.HasSuffix(r.Name, "-allocs")) {
				t.Errorf("%s: ratio %v against %q", r.Name, r.Ratio, r.Against)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("rows %q, want %q", got, names)
		}
	}
}

func TestNamesAreUniqueAndNameTheirCarrier(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range all(t) {
		for _, name := range m.Names() {
			carrier, _, ok := strings.Cut(name, "/")
			if !ok || !slices.Contains(Carriers(), carrier) || seen[name] {
				t.Errorf("row %q", name)
			}
			seen[name] = true
		}
	}
}

// A byte that is damaged on its way makes the measure fail, whichever it is.
func TestADamagedByteFailsTheMeasure(t *testing.T) {
	carry := map[string]func(context.Context) (*pair, error){"channels": channels, "raw TLS": rawTLS}
	for name, run := range map[string]func(context.Context, *pair, time.Duration) ([]sample, error){
		"bulk": bulk, "eight": eight, "beside": beside, "roundTrips": roundTrips,
		"1 KiB": func(ctx context.Context, p *pair, d time.Duration) ([]sample, error) { return speed(ctx, p, d, 1<<10) },
		"stalled": func(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
			return stalled(ctx, p, d, 1)
		},
	} {
		for over_, connect := range carry {
			damaged := func(ctx context.Context) (*pair, error) {
				p, err := connect(ctx)
				if err != nil {
					return nil, err
				}
				dial := p.dial
				p.dial = func(ctx context.Context) (net.Conn, error) {
					conn, err := dial(ctx)
					return &damaging{Conn: conn, writeAt: 60, readAt: -1}, err
				}
				return p, nil
			}
			if _, err := over(t.Context(), 20*time.Millisecond, damaged, run); !errors.Is(err, errWrong) {
				t.Errorf("%s over %s: %v", name, over_, err)
			}
		}
	}
}

func TestAMeasureEndsWithItsContext(t *testing.T) {
	why := errors.New("enough")
	for _, m := range all(t) {
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		timer := time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
		_, err := m.Run(ctx, Config{Time: time.Hour, Rounds: 1, FarEnd: otherProcess})
		timer.Stop()
		cancel(nil)
		if m.Names()[0] == "tcp/idle" && err == nil {
			continue // it knows no time and was quick
		}
		if !errors.Is(err, why) || !strings.Contains(err.Error(), m.Names()[0]) {
			t.Errorf("%q: %v", m.Names(), err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%q ended after %v", m.Names(), took)
		}
	}
}

// A far end that takes everything and never answers holds nobody for ever.
func TestAnUnboundedStreamIsAnError(t *testing.T) {
	p := &pair{dial: func(context.Context) (net.Conn, error) { return &abyss{}, nil }, far: &far{}}
	if j, err := jam(t.Context(), p, 3); !errors.Is(err, errUnbounded) {
		t.Errorf("jam: %v, %v", j, err)
	}
}

// abyss takes all bytes and echoes the first.
type abyss struct {
	net.Conn
	first byte
}

func (a *abyss) Write(p []byte) (int, error) {
	a.first = p[0]
	return len(p), nil
}

func (a *abyss) Read(p []byte) (int, error) {
	p[0] = a.first
	return 1, nil
}

func (a *abyss) Close() error { return nil }

// Rounds begin in turn with ours and with the baseline.
func TestRoundsAlternate(t *testing.T) {
	var order []string
	run := func(name string, v float64) func(context.Context, *pair, time.Duration) ([]sample, error) {
		return func(context.Context, *pair, time.Duration) ([]sample, error) {
			order = append(order, name)
			return []sample{alone(v), alone(v)}, nil
		}
	}
	m := Measure{
		ours: run("ours", 6), raw: run("raw", 2), keep: []bool{true, true},
		rows: []row{{name: "a", against: "raw"}, {name: "b", against: "raw", beyond: true}},
	}
	var rounds []int
	rows, err := m.Run(t.Context(), Config{Time: time.Millisecond, Rounds: 3, Progress: func(_ Measure, round int) { rounds = append(rounds, round) }})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"raw", "ours", "ours", "raw", "raw", "ours"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if !slices.Equal(rounds, []int{1, 2, 3}) {
		t.Errorf("progress %v", rounds)
	}
	if a := rows[0]; a.Value != 6 || a.Baseline != 2 || a.Ratio != 3 {
		t.Errorf("row %+v", a)
	}
	if b := rows[1]; b.Value != 4 || b.Baseline != 2 || !math.IsNaN(b.Ratio) {
		t.Errorf("row %+v", b)
	}
}

// The ratio is of the figures of one round, not of the medians.
func TestSummaryTakesMediansOfRounds(t *testing.T) {
	m := Measure{
		rows: []row{{name: "a", against: "raw"}, {name: "b"}, {name: "left out"}, {name: "unknown here"}},
		keep: []bool{true, true, false, true},
	}
	rows := m.summary([][]sample{
		{{10, 10}, {40, 20}, {90, 30}},
		{alone(3), alone(1), alone(2), alone(4)},
		{alone(1)},
		{alone(1), alone(math.NaN())},
	})
	if len(rows) != 2 {
		t.Fatalf("rows %+v", rows)
	}
	if a := rows[0]; a.Value != 40 || a.Baseline != 20 || a.Ratio != 2 {
		t.Errorf("row %+v", a)
	}
	if b := rows[1]; b.Value != 2.5 || !math.IsNaN(b.Baseline) || !math.IsNaN(b.Ratio) {
		t.Errorf("row %+v", b)
	}
}

func TestQuantile(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(200-i)*time.Microsecond)
	}
	if p50, p99 := quantile(times, .5), quantile(times, .99); p50 != 100 || p99 != 198 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if p99 := quantile(times[:1], .99); p99 != 1 {
		t.Errorf("of one: %v", p99)
	}
	if !math.IsNaN(quantile(nil, .5)) {
		t.Error("of none: a figure")
	}
}

func TestSelectSaysWhatThereIs(t *testing.T) {
	for _, c := range []struct {
		carriers []string
		only     string
		says     string
	}{
		{[]string{"pigeon"}, "", `no carrier "pigeon": there is tcp, unix, shm`},
		{[]string{"tcp", "pigeon"}, "", `no carrier "pigeon"`},
		{nil, "", "no carrier is named: there is tcp"},
		{[]string{"tcp"}, "pigeon", `"pigeon" matches no row: there are tcp/write-64KiB, tcp/cpu`},
	} {
		if _, err := Select(c.carriers, regexp.MustCompile(c.only)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q, %q: %v", c.carriers, c.only, err)
		}
	}
	measures, err := Select([]string{"tcp"}, regexp.MustCompile("p99|eight$"))
	var names []string
	for _, m := range measures {
		names = append(names, m.Names()...)
	}
	if want := []string{"tcp/eight", "tcp/trip-p99", "tcp/beside-p99", "tcp/raw-trip-p99", "tcp/channel-trip-p99"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v; want %q", names, err, want)
	}
	if _, err := measures[0].Run(t.Context(), Config{Rounds: 1}); err == nil {
		t.Error("no time: no error")
	}
}
