//go:build linux

// Hostile plays strangers, proven contacts and other local processes against
// peerchat daemons and nodes that it starts itself, on loopback, and measures
// what an honest contact notices of it. README.md says how to run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// attack is one thing that hostile parties do.
type attack struct {
	name string
	// do goes on until ctx ends, and counts what it tried.
	do func(ctx context.Context, w *world, t *tally)
	// then looks, once the attack has gone on for a while and before it ends, what came
	// of it. nil: the honest contact and the bounds are all that is looked at.
	then func(ctx context.Context, w *world, t *tally)
	// most is what the attack may cost.
	most bounds
}

// attacks are all of them, in the order of the table.
var attacks = [][]attack{connecting, proven, node, board, local}

// settings are the command line.
type settings struct {
	time time.Duration
	seed uint64
	only *regexp.Regexp
	prog string
}

func main() {
	if paths := os.Getenv(intruderEnv); paths != "" {
		intrude(strings.Split(paths, ":"))
		return
	}
	s, err := parse(os.Args[1:])
	if err == nil {
		err = run(s)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("hostile", flag.ContinueOnError)
	f.DurationVar(&s.time, "time", 2*time.Minute, "how long to attack, all attacks together")
	f.Uint64Var(&s.seed, "seed", 0, "of all random choices but keys; 0: any")
	only := f.String("only", "", "the attacks whose names match this regular expression")
	f.StringVar(&s.prog, "peerchat", "", "the program to attack (default: built from this source)")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("%q: want flags only (-help)", f.Args())
	}
	for s.seed == 0 {
		s.seed = rand.Uint64()
	}
	var err error
	s.only, err = regexp.Compile(*only)
	return s, err
}

// errHarm is the end of a run in which something harmful happened.
var errHarm = errors.New("something harmful happened")

// setUpUsually is how long an attack's processes take to start and to end.
const setUpUsually = 2 * time.Second

// run makes all attacks and prints the table.
func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// Setting up and looking afterwards come on top of the time of the attacks. A run
	// that hangs ends all the same, and stops what it has started.
	ctx, cancel := context.WithTimeoutCause(ctx, 3*s.time+5*time.Minute, errors.New("the run took too long"))
	defer cancel()
	fmt.Printf("seed %d\n", s.seed)
	g, err := newGround(ctx, s)
	if err != nil {
		return err
	}
	defer g.clear()
	var chosen []attack
	for _, room := range attacks {
		for _, a := range room {
			if s.only.MatchString(a.name) {
				chosen = append(chosen, a)
			}
		}
	}
	begin := time.Now()
	// share is the time of the next of n attacks, their setting up included.
	share := func(n int) time.Duration {
		return max(time.Second, (s.time-time.Since(begin))/time.Duration(n)-setUpUsually)
	}
	table := newTable(os.Stdout)
	still, err := g.play(ctx, attack{name: "undisturbed", do: func(ctx context.Context, _ *world, _ *tally) { <-ctx.Done() }}, share(len(chosen)+1), nil)
	if err != nil {
		return fmt.Errorf("without any attack: %w", err)
	}
	table.row(still, nil)
	harmed := len(still.harm) > 0
	for i, a := range chosen {
		out, err := g.play(ctx, a, share(len(chosen)-i), still)
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		table.row(out, still)
		harmed = harmed || len(out.harm) > 0
	}
	if harmed {
		return errHarm
	}
	return nil
}
