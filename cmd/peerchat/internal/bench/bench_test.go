package bench

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkRow prints a line for each row of the table, for which it measures
// whole rounds: the value, the baseline and the median of their ratios.
func BenchmarkRow(b *testing.B) {
	measures, err := Select(Carriers(), nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range measures {
		for i, r := range m.rows {
			b.Run(r.name, func(b *testing.B) { benchmarkRow(b, m, i) })
		}
	}
}

func benchmarkRow(b *testing.B, m Measure, i int) {
	round, end, err := m.begin(b.Context(), Config{FarEnd: otherProcess})
	if err != nil {
		b.Fatal(err)
	}
	defer end()
	taken := make([][]sample, len(m.rows))
	for n := 0; b.Loop(); n++ {
		samples, err := round(b.Context(), 200*time.Millisecond, n)
		if err != nil {
			b.Fatal(err)
		}
		for i, s := range samples {
			taken[i] = append(taken[i], s)
		}
	}
	b.ReportMetric(0, "ns/op") // of a round: no news
	for _, r := range m.summary(taken) {
		if r.Name != m.rows[i].name {
			continue
		}
		b.ReportMetric(r.Value, r.Unit)
		if r.Against != "" {
			b.ReportMetric(r.Baseline, "baseline-"+r.Unit)
		}
		if r.Ratio == r.Ratio { // not NaN
			name, _, _ := strings.Cut(r.Against, ",")
			b.ReportMetric(r.Ratio, "×("+strings.ReplaceAll(name, " ", "-")+")")
		}
	}
}
