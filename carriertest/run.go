package carriertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// Row is one cell of the table.
type Row struct {
	Carrier string
	Way     string // of ending
	Reader  string // "fast", "slow" or "absent"
	Side    string // that ends: "caller" or "acceptor" of the link
	// Verdict is what happened: how much was read and the end that the reader
	// saw, what the writer heard, and the ending call's error.
	Verdict string
	// Fault is what is wrong with it; "": nothing.
	Fault string
}

// atOnce is how many cells of a carrier are played at a time: most of them wait
// most of the time.
const atOnce = 4

// Run tests a carrier, in about ten seconds, and returns its table. Each rule and
// each cell is a subtest: contract/RULE and WAY/READER/SIDE. All is played also if
// only some subtests are asked for. A carrier that breaks a rule has no table: Run
// then returns nil.
func Run(t *testing.T, c Carrier) []Row {
	t.Helper()
	if root := os.Getenv(siteVar); root != "" {
		obey(t.Context(), c, root)
	}
	kept := true
	for _, k := range checks {
		kept = t.Run("contract/"+k.name, func(t *testing.T) {
			switch err := k.pass(t.Context(), c); {
			case errors.Is(err, errors.ErrUnsupported):
				t.Skip("the carrier does not offer it")
			case err != nil:
				t.Error(err)
			}
		}) && kept
	}
	kept = t.Run("contract/no goroutine is left", func(t *testing.T) {
		if err := leftovers(t.Context(), c); err != nil {
			t.Error(err)
		}
	}) && kept
	if !kept { // what the table would show is what a rule has found
		return nil
	}
	rows := play(t.Context(), c, t.Name())
	for _, r := range rows {
		t.Run(r.Way+"/"+r.Reader+"/"+r.Side, func(t *testing.T) {
			if r.Fault != "" {
				t.Errorf("%s: %s", r.Verdict, r.Fault)
			}
		})
	}
	return rows
}

// cells are a carrier's.
func (c Carrier) cells(test string) (cells []*cell) {
	for i := range ways {
		w := &ways[i]
		if w.processes && (c.OneProcess || c.Adopted) {
			continue
		}
		paces := w.paces
		if paces == nil {
			paces = []pace{fast, slow, absent}
		}
		for _, p := range paces {
			cells = append(cells, &cell{c, w, p, caller, test}, &cell{c, w, p, acceptor, test})
		}
	}
	return cells
}

// play plays all cells of a carrier.
func play(ctx context.Context, c Carrier, test string) []Row {
	cells := c.cells(test)
	rows := make([]Row, len(cells))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, cl := range slices.Backward(cells) { // the last ones wait longest
		places <- struct{}{}
		all.Go(func() {
			rows[i] = cl.row(ctx)
			<-places
		})
	}
	all.Wait()
	return rows
}

func (c *cell) row(ctx context.Context) Row {
	var verdict, fault string
	if !within(ctx, func(ctx context.Context) { verdict, fault = c.play(ctx) }) {
		verdict, fault = "hang", errHang.Error()
	}
	return Row{c.carrier.Name, c.way.name, c.pace.String(), c.side.String(), verdict, fault}
}

// errHang is for what neither returned nor failed.
var errHang = fmt.Errorf("not over after %v", 2*patience)

// within runs f, whose context ends after patience; false if f goes on for as long
// again.
func within(ctx context.Context, f func(context.Context)) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		f(ctx)
	}()
	select {
	case <-over:
		return true
	case <-time.After(2 * patience):
		return false
	}
}

// Table returns rows as aligned text, both sides of a way and a reader in one line.
// A cell at fault begins with a "!".
func Table(rows []Row) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "carrier\tway of ending\treader\tthe caller ends\tthe acceptor ends")
	for _, r := range rows {
		if r.Fault != "" {
			r.Verdict = "! " + r.Verdict
		}
		if r.Side == caller.String() {
			fmt.Fprintf(w, "\n%s\t%s\t%s", r.Carrier, r.Way, r.Reader)
		}
		fmt.Fprintf(w, "\t%s", r.Verdict)
	}
	fmt.Fprintln(w)
	_ = w.Flush() // into memory
	return text.String()
}
