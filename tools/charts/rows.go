package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
)

// Bounds of the input: bench has fewer than a hundred rows, of about 100 bytes.
const (
	maxLine = 64 << 10
	maxRows = 1000
	maxBars = 64
	maxName = 80
)

// row is a line of peerchat bench --json.
type row struct {
	Measure  string   `json:"measure"`
	Value    *float64 `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
}

// read reads all rows.
func read(r io.Reader) ([]row, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	var rows []row
	for n := 1; s.Scan(); n++ {
		if len(s.Bytes()) == 0 {
			continue
		}
		var v row
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("line %d: %w: want the lines of peerchat bench --json", n, err)
		}
		if err := v.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if rows = append(rows, v); len(rows) > maxRows {
			return nil, fmt.Errorf("more than %d rows", maxRows)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("the rows: %w", err)
	}
	return rows, nil
}

func (v row) check() error {
	switch {
	case v.Measure == "" || len(v.Measure) > maxName || len(v.Unit) > maxName:
		return fmt.Errorf("measure %.100q, unit %.100q: want 1 to %d bytes for a measure, at most as many for a unit", v.Measure, v.Unit, maxName)
	case v.Value == nil:
		return fmt.Errorf("%s has no value", v.Measure)
	}
	for what, f := range map[string]*float64{"value": v.Value, "baseline": v.Baseline, "ratio": v.Ratio} {
		if f != nil && (*f < 0 || *f > math.MaxFloat32) {
			return fmt.Errorf("%s of %s is %g: want 0 to %g", what, v.Measure, *f, math.MaxFloat32)
		}
	}
	return nil
}

// bar is what is drawn of a row.
type bar struct {
	name  string
	long  float64
	label string
	good  bool // at least as good as the baseline
}

// lower are the units of which less is better.
var lower = map[string]bool{"ns": true, "µs": true, "ms": true, "s": true, "s/GB": true, "B": true, "KiB": true, "MiB": true, "allocs": true}

// bars chooses what is drawn: ratios, or the values of one unit.
func bars(rows []row, only *regexp.Regexp, unit string) ([]bar, error) {
	var out []bar
	for _, v := range rows {
		switch {
		case !only.MatchString(v.Measure):
		case unit != "" && v.Unit == unit:
			out = append(out, bar{name: v.Measure, long: *v.Value, label: figure(*v.Value) + " " + v.Unit, good: true})
		case unit == "" && v.Ratio != nil && *v.Ratio > 0:
			times := *v.Ratio
			if lower[v.Unit] {
				times = 1 / times
			}
			out = append(out, bar{name: v.Measure, long: times, label: figure(times) + "×   " + figure(*v.Value) + " " + v.Unit, good: times >= 1})
		}
	}
	switch {
	case len(out) == 0:
		return nil, errors.New("no row to draw: see --only and --unit")
	case len(out) > maxBars:
		return nil, fmt.Errorf("%d rows: at most %d can be drawn; choose with --only", len(out), maxBars)
	}
	return out, nil
}

// figure shows three digits, or all of a large number.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
