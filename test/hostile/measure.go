//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/pause"
)

const mib = 1 << 20

// bounds are what an attack may cost, beside what goes on undisturbed. 0 is the
// default.
type bounds struct {
	// memory is in bytes, of the victim's daemon and of the node: 128 MiB. Go takes about
	// twice what is in use.
	memory int64
	// disk is in bytes, of the victim's account and of the node's folder: 64 MiB.
	disk int64
	// log is the size of daemon.log in bytes: 1 MiB and 64 KiB a second, but no more than 9
	// MiB, two files of 4 MiB and what is said at a start.
	log int64
	// written is how many bytes the victim's daemon writes to disks, again and again to one
	// file perhaps: 64 MiB and 8 MiB a second, which is what 32 of the longest messages of
	// strangers take in a database.
	written int64
	// entries is how many files and folders come into being: 5 000.
	entries int64
}

// or fills in the defaults for an attack that went on for a time.
func (b bounds) or(d time.Duration) bounds {
	for _, f := range []struct {
		v   *int64
		def int64
	}{{&b.memory, 128 * mib}, {&b.disk, 64 * mib}, {&b.log, min(9*mib, mib+int64(d.Seconds()*(64<<10)))}, {&b.entries, 5000}, {&b.written, 64*mib + int64(d.Seconds()*8*mib)}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return b
}

// tally is what an attack has done so far. Its methods may be called concurrently.
type tally struct {
	tried atomic.Int64

	mu   sync.Mutex
	harm []string
}

// harmed notes that something harmful happened.
func (t *tally) harmed(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 8
	if len(t.harm) < most {
		t.harm = append(t.harm, fmt.Sprintf(format, args...))
	}
}

// cost is what the processes have used.
type cost struct {
	daemon, node  int64 // memory in bytes, at the peak
	disk, entries int64
	log, written  int64
}

func (w *world) cost() (c cost, err error) {
	if c.daemon, err = w.daemon.peak(); err != nil {
		return c, err
	}
	if c.node, err = w.node.peak(); err != nil {
		return c, err
	}
	if c.written, err = w.daemon.number("io", "write_bytes:"); err != nil {
		return c, err
	}
	for _, folder := range []string{"victim", "node", "received", "tmp", "run"} {
		bytes, entries := w.onDisk(folder)
		c.disk += bytes
		c.entries += entries
	}
	logs, err := filepath.Glob(filepath.Join(w.account("victim"), "daemon.log*"))
	for _, path := range logs {
		if st, err := os.Stat(path); err == nil {
			c.log += st.Size()
		}
	}
	return c, err
}

// outcome is a row of the table.
type outcome struct {
	name  string
	tried int64
	harm  []string
	cost  cost
	times times
}

// play makes a world, has an attack go on in it for a time while an honest contact
// does what it does, and tells what came of it. still is the outcome without an
// attack; nil: this is it.
func (g *ground) play(ctx context.Context, a attack, share time.Duration, still *outcome) (*outcome, error) {
	w, err := g.newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer w.clear()
	defer w.stop()
	ctx, end := context.WithCancel(ctx)
	defer end()
	var t tally
	once := make(chan struct{})
	close(once)
	if warm := live(ctx, w, &t, once); len(t.harm) > 0 { // and the links are there
		return nil, fmt.Errorf("before the attack: %s (%s)", t.harm[0], warm.medians())
	}
	for _, p := range []*process{w.daemon, w.node} {
		if err := p.forgetPeak(); err != nil {
			return nil, err
		}
	}
	attacking, stop := context.WithCancel(ctx)
	defer stop()
	var attackers sync.WaitGroup
	attackers.Go(func() { a.do(attacking, w, &t) })
	// The attack has a third of its time before anything is timed.
	_ = pause.For(ctx, share/3)
	timed, cancel := context.WithTimeout(ctx, share-share/3)
	defer cancel()
	out := &outcome{name: a.name, times: live(ctx, w, &t, timed.Done())}
	if a.then != nil {
		a.then(ctx, w, &t)
	}
	stop()
	attackers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := w.died(); err != nil {
		t.harmed("%v", err)
	} else if out.cost, err = w.cost(); err != nil {
		return nil, err
	}
	out.tried = t.tried.Load()
	if still != nil {
		t.passed(a.most.or(share), out.cost, still.cost)
	}
	out.harm = t.harm
	return out, nil
}

// passed compares the costs with the bounds.
func (t *tally) passed(b bounds, c, still cost) {
	for _, x := range []struct {
		what      string
		cost, was int64
		most      int64
		unit      int64
		unitName  string
	}{
		{"the daemon's memory", c.daemon, still.daemon, b.memory, mib, " MiB"},
		{"the node's memory", c.node, still.node, b.memory, mib, " MiB"},
		{"disk", c.disk, still.disk, b.disk, mib, " MiB"},
		{"what the daemon writes", c.written, still.written, b.written, mib, " MiB"},
		{"daemon.log", c.log, still.log, b.log, mib, " MiB"},
		{"files and folders", c.entries, still.entries, b.entries, 1, ""},
	} {
		if more := x.cost - x.was; more > x.most {
			t.harmed("%s: %d%s over undisturbed, at most %d", x.what, more/x.unit, x.unitName, x.most/x.unit)
		}
	}
}

// table prints rows as they come.
type table struct{ out io.Writer }

func newTable(out io.Writer) table {
	fmt.Fprintf(out, "%-44s %10s  %-7s  %17s  %12s  %s\n", "attack", "tried", "harmful", "memory (MiB)", "disk (MiB)", "delay of a contact (ratio)")
	return table{out}
}

func (t table) row(o, still *outcome) {
	harmful := "no"
	if len(o.harm) > 0 {
		harmful = "YES"
	}
	if still == nil {
		fmt.Fprintf(t.out, "%-44s %10d  %-7s  %17s  %12s  %s\n", o.name, o.tried, harmful,
			fmt.Sprintf("%d, node %d", o.cost.daemon/mib, o.cost.node/mib), fmt.Sprint(o.cost.disk/mib), o.times.medians())
	} else {
		fmt.Fprintf(t.out, "%-44s %10d  %-7s  %17s  %12s  %s\n", o.name, o.tried, harmful,
			fmt.Sprintf("%+d, node %+d", (o.cost.daemon-still.cost.daemon)/mib, (o.cost.node-still.cost.node)/mib),
			fmt.Sprintf("%+d", (o.cost.disk-still.cost.disk)/mib), o.times.slowest(still.times))
	}
	for _, h := range o.harm {
		fmt.Fprintf(t.out, "    harmful: %s\n", h)
	}
}

func random16() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

func random32() (id [32]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
