package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/cmd/peerchat/internal/bench"
)

// Bounds of the flags: more than a day of measuring helps nobody.
const (
	mostSeconds = 60
	mostRounds  = 1000
)

// benchFlags are the flags of bench.
type benchFlags struct {
	carriers []string
	only     string
	seconds  float64
	rounds   int
	markdown bool
}

// newBench is the command that measures channels on this machine.
func newBench(o *options) *cobra.Command {
	var f benchFlags
	cmd := plain("bench", func(cmd *cobra.Command) error { return f.run(cmd, o.json) })
	f.register(cmd.Flags())
	cmd.AddCommand(newFarEnd())
	return cmd
}

func (f *benchFlags) register(s *pflag.FlagSet) {
	s.StringSliceVar(&f.carriers, "carrier", []string{"tcp"}, "carriers to measure over: "+strings.Join(bench.Carriers(), ", "))
	s.StringVar(&f.only, "only", "", "regular expression: only rows whose names match")
	s.Float64Var(&f.seconds, "seconds", 0.5, "how long a figure is taken in a round, in seconds")
	s.IntVar(&f.rounds, "rounds", 5, "how often all is measured")
	s.BoolVar(&f.markdown, "markdown", false, "print a Markdown table with the machine and the command")
}

// run measures and prints. JSON comes row by row, tables at the end.
func (f *benchFlags) run(cmd *cobra.Command, asJSON bool) error {
	if asJSON && f.markdown {
		return usageError{errors.New("--json and --markdown: choose one")}
	}
	measures, cfg, err := f.plan()
	if err != nil {
		return usageError{err}
	}
	progress := func(string) {}
	if errOut := cmd.ErrOrStderr(); isTerminal(errOut) && !asJSON {
		progress = func(line string) { fmt.Fprint(errOut, "\r\x1b[K", line) }
	}
	cfg.FarEnd = farEnd
	cfg.Progress = func(m bench.Measure, round int) {
		progress(fmt.Sprintf("%s: round %d of %d", strings.Join(m.Names(), ", "), round, cfg.Rounds))
	}
	out := printerOf(cmd)
	var rows []bench.Row
	for _, m := range measures {
		got, err := m.Run(cmd.Context(), cfg)
		if err != nil {
			progress("")
			return err
		}
		if asJSON {
			printRows(out, got)
		}
		rows = append(rows, got...)
	}
	progress("")
	switch {
	case asJSON:
		return nil
	case f.markdown:
		return markdown(out.out, commandLine(cmd), rows)
	default:
		return table(out.out, rows)
	}
}

// plan checks the flags.
func (f *benchFlags) plan() ([]bench.Measure, bench.Config, error) {
	cfg := bench.Config{Time: time.Duration(f.seconds * float64(time.Second)), Rounds: f.rounds}
	if !(f.seconds >= 0.001 && f.seconds <= mostSeconds) { // also not a number
		return nil, cfg, fmt.Errorf("--seconds %v: want 0.001 to %d", f.seconds, mostSeconds)
	}
	if f.rounds < 1 || f.rounds > mostRounds {
		return nil, cfg, fmt.Errorf("--rounds %d: want 1 to %d", f.rounds, mostRounds)
	}
	only, err := regexp.Compile(f.only)
	if err != nil {
		return nil, cfg, fmt.Errorf("--only: %w", err)
	}
	measures, err := bench.Select(f.carriers, only)
	return measures, cfg, err
}

// benchRow is a row as JSON: null where there is no figure.
type benchRow struct {
	Measure  string   `json:"measure"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
}

func printRows(p *printer, rows []bench.Row) {
	orNull := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	for _, r := range rows {
		p.json(benchRow{Measure: r.Name, Value: r.Value, Unit: r.Unit, Baseline: orNull(r.Baseline), Ratio: orNull(r.Ratio)})
	}
}

// table prints the rows for people.
func table(w io.Writer, rows []bench.Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "measure\tvalue\tunit\tratio\tbaseline\tof\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Title, figure(r.Value), r.Unit, figure(r.Ratio), figure(r.Baseline), r.Against)
	}
	return t.Flush()
}

// markdown prints the rows as a table, and how they were made.
func markdown(w io.Writer, command string, rows []bench.Row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, on %s:\n\n    %s\n\n", time.Now().UTC().Format(time.DateOnly), bench.Machine(), command)
	b.WriteString("| measure | value | baseline | ratio | row |\n|---|--:|--:|--:|---|\n")
	for _, r := range rows {
		base := figure(r.Baseline)
		if r.Against != "" {
			base += " (" + r.Against + ")"
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | `%s` |\n", r.Title, figure(r.Value), r.Unit, base, figure(r.Ratio), r.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figure shows three digits, or all of a large number.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// commandLine is what was called, with the flags that were set.
func commandLine(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString(cmd.CommandPath())
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if s, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(s.GetSlice(), ",")
		}
		if strings.ContainsAny(value, " |*?()[]$'\"\\&;<>") {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		if fmt.Fprintf(&b, " --%s", f.Name); f.Value.Type() != "bool" {
			b.WriteString(" " + value)
		}
	})
	return b.String()
}
