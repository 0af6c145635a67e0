package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

// line is a step of the demo's timeline.
type line struct {
	Step   string  `json:"step"`
	MS     float64 `json:"ms"` // how long the step took
	OK     bool    `json:"ok"`
	Detail string  `json:"detail,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// summary is the last line.
type summary struct {
	ConnectMS       float64      `json:"connect_ms"`        // ConnectDevice to bob's answer, the first byte of the first channel
	SecondChannelMS float64      `json:"second_channel_ms"` // ConnectDevice of the second channel
	MBPerS          float64      `json:"mb_per_s"`          // of the large file, 10⁶ bytes per second
	Files           []fileReport `json:"files"`
}

// timeline prints steps as they are done.
type timeline struct {
	p     *printer
	json  bool
	start time.Time

	mu      sync.Mutex
	current string
	began   time.Time
}

func newTimeline(out io.Writer, asJSON bool) *timeline {
	now := time.Now()
	return &timeline{p: &printer{out: out}, json: asJSON, start: now, began: now}
}

// begin names the step that is under way, for when it fails.
func (t *timeline) begin(step string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current, t.began = step, time.Now()
}

// done shows the step that is under way as done.
func (t *timeline) done(format string, args ...any) {
	t.mu.Lock()
	l := line{Step: t.current, MS: ms(time.Since(t.began)), OK: true, Detail: fmt.Sprintf(format, args...)}
	t.began = time.Now()
	t.mu.Unlock()
	t.show(l)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// show prints a step.
func (t *timeline) show(l line) {
	if t.json {
		t.p.json(l)
		return
	}
	mark := "✓"
	what := l.Detail
	if !l.OK {
		mark, what = "✗", l.Error
	}
	t.p.print(fmt.Sprintf("%s %9.2f ms  %-16s %s", mark, l.MS, l.Step, printable(what)))
}

// finish prints the failed step, if one did, and the summary.
func (t *timeline) finish(s summary, err error) {
	if err != nil {
		t.show(line{Step: t.current, MS: ms(time.Since(t.began)), Error: err.Error()})
	}
	if t.json {
		t.p.json(struct {
			line
			summary
		}{line{Step: "summary", OK: err == nil, MS: ms(time.Since(t.start))}, s})
		return
	}
	if err != nil {
		t.p.print(fmt.Sprintf("\nfailed at “%s” after %v", t.current, time.Since(t.start).Round(time.Millisecond)))
		return
	}
	t.p.print(fmt.Sprintf("\nconnect to first byte  %8.2f ms\nsecond channel         %8.2f ms\nthroughput             %8.0f MB/s", s.ConnectMS, s.SecondChannelMS, s.MBPerS))
	for _, f := range s.Files {
		t.p.print(fmt.Sprintf("%-22s %11s  sha256 %s…  verified by bob", f.Name, humanize.IBytes(uint64(f.Bytes)), f.SHA256[:16]))
	}
	t.p.print(fmt.Sprintf("all done in %v", time.Since(t.start).Round(time.Millisecond)))
}
