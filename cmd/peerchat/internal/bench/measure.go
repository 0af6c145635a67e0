package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Config says how long to measure. Time and Rounds must be positive.
type Config struct {
	// Time is how long one figure is taken in one round, of ours and as long
	// again of the baseline. A quarter of it goes before, to warm up.
	Time time.Duration
	// Rounds is how often all is measured.
	Rounds int
	// Progress, if set, is told before each round, counted from 1.
	Progress func(m Measure, round int)
	// FarEnd makes a command that runs the function FarEnd, for the rows between
	// two processes. Those need it.
	FarEnd func() (*exec.Cmd, error)
}

// Row is one line of the table. Fields that do not apply are NaN.
type Row struct {
	Name     string  // "tcp/write-64KiB", for programs: never changes its meaning
	Title    string  // for people
	Unit     string  // of Value and Baseline
	Value    float64 // ours, the median of the rounds
	Baseline float64 // what Against names, the median of the rounds
	Against  string  // what the baseline is, such as "raw TLS"; "" without one
	Ratio    float64 // the median of the rounds' own ratios Value/Baseline
}

// Measure is a way to measure that gives one or several rows. It may be copied
// and used concurrently, but two that run at once disturb each other.
type Measure struct {
	rows []row
	keep []bool // which rows are wanted
	ours func(ctx context.Context, p *pair, d time.Duration) ([]sample, error)
	raw  func(ctx context.Context, p *pair, d time.Duration) ([]sample, error) // nil without; gives the baselines of the first rows
	// apart, if set, is done instead of both.
	apart *apart
}

// row says what a sample means.
type row struct {
	name, title, unit string
	against           string
	beyond            bool // the value is what ours has more than raw
}

// sample is a figure of one round. NaN is none.
type sample struct{ value, baseline float64 }

// alone is a figure that has no baseline, or gets raw's.
func alone(v float64) sample { return sample{v, math.NaN()} }

// Names returns the names of the measure's rows.
func (m Measure) Names() []string {
	var names []string
	for i, r := range m.rows {
		if m.keep[i] {
			names = append(names, r.name)
		}
	}
	return names
}

// carriers are what there is to measure, by the carrier's name.
var carriers = []struct {
	name     string
	measures func() []Measure
}{
	{"tcp", func() []Measure { return append(tcpMeasures(), betweenProcesses("tcp")...) }},
	{"unix", func() []Measure { return betweenProcesses("unix") }},
	{"shm", func() []Measure { return betweenProcesses("shm") }},
}

// Carriers returns the names of all carriers.
func Carriers() []string {
	var names []string
	for _, c := range carriers {
		names = append(names, c.name)
	}
	return names
}

// Select returns the measures over the carriers, in the order of the table,
// with the rows whose names match only; nil matches all. It fails where a
// carrier does not exist or nothing matches, and says what there is.
func Select(over []string, only *regexp.Regexp) ([]Measure, error) {
	for _, name := range over {
		if !slices.Contains(Carriers(), name) {
			return nil, fmt.Errorf("no carrier %q: there is %s", name, strings.Join(Carriers(), ", "))
		}
	}
	var found []Measure
	var all []string
	for _, c := range carriers {
		if !slices.Contains(over, c.name) {
			continue
		}
		for _, m := range c.measures() {
			m.keep = make([]bool, len(m.rows))
			for i, r := range m.rows {
				m.keep[i] = only == nil || only.MatchString(r.name)
				all = append(all, r.name)
			}
			if slices.Contains(m.keep, true) {
				found = append(found, m)
			}
		}
	}
	if len(over) == 0 {
		return nil, fmt.Errorf("no carrier is named: there is %s", strings.Join(Carriers(), ", "))
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%q matches no row: there are %s", only, strings.Join(all, ", "))
	}
	return found, nil
}

// Run measures for cfg.Rounds and returns the rows that are wanted and that
// this system can measure. It blocks until then, a connection fails, a byte is
// not what was sent, or ctx ends.
func (m Measure) Run(ctx context.Context, cfg Config) ([]Row, error) {
	if cfg.Time <= 0 || cfg.Rounds <= 0 {
		return nil, errors.New("bench: the time and the rounds must be positive")
	}
	failed := func(err error) error { return fmt.Errorf("%s: %w", strings.Join(m.Names(), ", "), err) }
	round, end, err := m.begin(ctx, cfg)
	if err != nil {
		return nil, failed(err)
	}
	defer end()
	taken := make([][]sample, len(m.rows))
	for r := range cfg.Rounds {
		if cfg.Progress != nil {
			cfg.Progress(m, r+1)
		}
		samples, err := round(ctx, cfg.Time, r)
		if err != nil {
			return nil, failed(err)
		}
		for i, s := range samples {
			taken[i] = append(taken[i], s)
		}
	}
	return m.summary(taken), nil
}

// begin returns what measures one round, and what ends it all.
func (m Measure) begin(ctx context.Context, cfg Config) (round func(context.Context, time.Duration, int) ([]sample, error), end func(), err error) {
	if m.apart == nil {
		return m.round, func() {}, nil
	}
	l, err := newLab(ctx, cfg.FarEnd)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, d time.Duration, number int) ([]sample, error) {
		return m.apart.round(ctx, l, m.keep, d, number)
	}, l.close, nil
}

// summary makes the rows of each row's samples.
func (m Measure) summary(taken [][]sample) []Row {
	var rows []Row
	for i, r := range m.rows {
		var values, baselines, ratios []float64
		for _, s := range taken[i] {
			values, baselines, ratios = append(values, s.value), append(baselines, s.baseline), append(ratios, s.value/s.baseline)
			if r.beyond {
				ratios[len(ratios)-1] = math.NaN()
			}
		}
		if v := median(values); m.keep[i] && !math.IsNaN(v) {
			rows = append(rows, Row{
				Name: r.name, Title: r.title, Unit: r.unit, Against: r.against,
				Value: v, Baseline: median(baselines), Ratio: median(ratios),
			})
		}
	}
	return rows
}

// round measures once, raw first in the rounds with an even number.
func (m Measure) round(ctx context.Context, d time.Duration, number int) (ours []sample, err error) {
	var raw []sample
	for i := range 2 {
		if isRaw := i == number%2; isRaw && m.raw != nil {
			raw, err = over(ctx, d, rawTLS, m.raw)
		} else if !isRaw {
			ours, err = over(ctx, d, channels, m.ours)
		}
		if err != nil {
			return nil, err
		}
	}
	for i, s := range raw {
		ours[i].baseline = s.value
		if m.rows[i].beyond {
			ours[i].value -= s.value
		}
	}
	return ours, nil
}

// hang is how much longer than its own time a measure may take: setting up ten
// thousand channels takes a second, more under the race detector.
const hang = 30 * time.Second

// over runs f over a fresh pair, and ends both when ctx ends or f hangs.
func over(ctx context.Context, d time.Duration, connect func(context.Context) (*pair, error),
	f func(context.Context, *pair, time.Duration) ([]sample, error),
) ([]sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*d+hang, fmt.Errorf("not done after %v", 10*d+hang))
	defer cancel()
	s, err := overPair(ctx, d, connect, f)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return s, err
}

// overPair is over without its bounds.
func overPair(ctx context.Context, d time.Duration, connect func(context.Context) (*pair, error),
	f func(context.Context, *pair, time.Duration) ([]sample, error),
) ([]sample, error) {
	p, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	runtime.GC() // what was before is not this one's garbage
	return f(ctx, p, d)
}

// median returns the middle of v, or NaN if v is empty or holds a NaN.
func median(v []float64) float64 {
	if len(v) == 0 || slices.ContainsFunc(v, math.IsNaN) {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// quantile returns in µs what the share q of the times does not exceed; NaN of
// none. It sorts times.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return math.NaN()
	}
	slices.Sort(times)
	i := int(math.Ceil(q*float64(len(times)))) - 1
	return float64(times[max(i, 0)]) / float64(time.Microsecond)
}
