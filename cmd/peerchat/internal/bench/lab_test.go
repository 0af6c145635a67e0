package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// bulkOver returns the measure of large writes over a carrier.
func bulkOver(t *testing.T, carrier string) Measure {
	t.Helper()
	ms, err := Select([]string{carrier}, regexp.MustCompile(carrier+"/(raw|channel)-64KiB$"))
	if err != nil || len(ms) != 1 {
		t.Fatalf("%d measures: %v", len(ms), err)
	}
	return ms[0]
}

// farEnds starts far ends whose runtime folders are made in a folder of the
// test's, and remembers the last one.
type farEnds struct {
	dir string
	mu  sync.Mutex
	cmd *exec.Cmd
}

func newFarEnds(t *testing.T) *farEnds {
	t.Helper()
	dir, err := os.MkdirTemp("", "b") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &farEnds{dir: dir}
}

func (f *farEnds) start() (*exec.Cmd, error) {
	cmd, err := otherProcess()
	if err == nil {
		cmd.Env = append(cmd.Env, "TMPDIR="+f.dir)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cmd = cmd
	return cmd, err
}

func (f *farEnds) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.cmd.Process.Kill()
}

// checkGone fails if the process or its folder is left.
func (f *farEnds) checkGone(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cmd.ProcessState == nil {
		t.Error("the far end was not waited for")
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestMeasureBetweenProcessesLeavesNothing(t *testing.T) {
	f := newFarEnds(t)
	rows, err := bulkOver(t, "unix").Run(t.Context(), Config{Time: 5 * time.Millisecond, Rounds: 1, FarEnd: f.start})
	if err != nil || len(rows) != 2 {
		t.Errorf("%+v: %v", rows, err)
	}
	f.checkGone(t)
}

// fault: G1
func TestMeasureEndsWhenTheFarEndIsKilled(t *testing.T) {
	for _, carrier := range Carriers() {
		for name, after := range map[string]time.Duration{"at once": 0, "within a transfer": 200 * time.Millisecond} {
			t.Run(carrier+" "+name, func(t *testing.T) {
				f := newFarEnds(t)
				var killed time.Time
				cfg := Config{Time: time.Hour, Rounds: 1, FarEnd: f.start, Progress: func(Measure, int) {
					killed = time.Now().Add(after)
					time.AfterFunc(after, f.kill)
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := bulkOver(t, carrier).Run(ctx, cfg)
				if !errors.Is(err, errFarEnded) || !strings.Contains(err.Error(), "signal: killed") {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(killed); took > 5*time.Second {
					t.Errorf("noticed after %v", took)
				}
				f.checkGone(t)
			})
		}
	}
}

func TestMeasureThatIsStoppedEndsTheFarEnd(t *testing.T) {
	why := errors.New("enough")
	for _, carrier := range Carriers() {
		f := newFarEnds(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := bulkOver(t, carrier).Run(ctx, Config{Time: time.Hour, Rounds: 1, FarEnd: f.start, Progress: func(Measure, int) {
			time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
		}})
		cancel(nil)
		if !errors.Is(err, why) {
			t.Errorf("%s: ended with %v", carrier, err)
		}
		f.checkGone(t)
	}
}

func TestFarEndThatIsNoneIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		farEnd func() (*exec.Cmd, error)
		says   string
	}{
		"none":    {nil, "Config.FarEnd is missing"},
		"missing": {func() (*exec.Cmd, error) { return exec.Command("/nowhere/peerchat"), nil }, "start the far end"},
		"mute":    {func() (*exec.Cmd, error) { return exec.Command(os.Args[0], "-test.run=^$", "-test.v=false"), nil }, "the far end's process ended: exit status 0"},
		"fails":   {func() (*exec.Cmd, error) { return nil, os.ErrPermission }, "permission denied"},
	} {
		_, err := bulkOver(t, "unix").Run(t.Context(), Config{Time: time.Millisecond, Rounds: 1, FarEnd: c.farEnd})
		if name == "mute" && err != nil && strings.Contains(err.Error(), "invalid character") {
			continue // what a test binary prints is no hello
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each round begins with another way, and a row's figures are of its own round.
func TestWaysTakeTurns(t *testing.T) {
	raw, channel := pairOf("unix")
	a := apart{cells: []cell{{of: raw, beside: []way{memmove}}, {of: channel, beside: []way{raw}}, {of: way{"shm", false}}}}
	keep := []bool{true, true, false}
	for round, want := range [][]way{{raw, memmove, channel}, {memmove, channel, raw}, {channel, raw, memmove}, {raw, memmove, channel}} {
		if got := a.ways(keep, round); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
	}
}
