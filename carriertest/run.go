package carriertest

import (
	"context"
	"fmt"
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
	Reader  string // "fast", "slow", "absent"
	Side    string // that ends: "caller" or "acceptor" of the link
	// Verdict is what happened: what the reader had and saw, what the writer
	// heard, and what the ending call returned.
	Verdict string
	// Fault is what is wrong with it; "" is nothing.
	Fault string
}

// atOnce is how many cells of a carrier are played at a time: most of them wait
// most of the time.
const atOnce = 8

// Run tests a carrier. Each cell of the table is a subtest, named
// way/reader/side. It returns the table.
func Run(t *testing.T, c Carrier) []Row {
	t.Helper()
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
		paces := w.paces
		if paces == nil {
			paces = []pace{fast, slow, absent}
		}
		for _, p := range paces {
			for _, s := range []side{caller, acceptor} {
				cells = append(cells, &cell{c, w, p, s, test})
			}
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
	for i, cl := range cells {
		places <- struct{}{}
		all.Go(func() {
			rows[i] = cl.row(ctx)
			<-places
		})
	}
	all.Wait()
	return rows
}

// row plays a cell, for twice its time at most.
func (c *cell) row(ctx context.Context) Row {
	r := Row{Carrier: c.carrier.Name, Way: c.way.name, Reader: paceNames[c.pace], Side: sideNames[c.side]}
	type result struct{ verdict, fault string }
	done := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		verdict, fault := c.play(ctx)
		done <- result{verdict, fault}
	}()
	select {
	case res := <-done:
		r.Verdict, r.Fault = res.verdict, res.fault
	case <-time.After(2 * patience):
		r.Verdict, r.Fault = "hang", fmt.Sprintf("not over after %v", 2*patience)
	}
	return r
}

// Table returns rows as aligned text, both sides of a way and a reader in one line.
// A cell at fault has a "!" before its verdict.
func Table(rows []Row) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "carrier\tway of ending\treader\tthe caller ends\tthe acceptor ends")
	for i, r := range rows {
		verdict := r.Verdict
		if r.Fault != "" {
			verdict = "! " + verdict
		}
		if i > 0 && r.Side == sideNames[acceptor] {
			fmt.Fprintf(w, "\t%s\n", verdict)
		} else {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s", r.Carrier, r.Way, r.Reader, verdict)
		}
	}
	_ = w.Flush() // into memory
	return text.String()
}
