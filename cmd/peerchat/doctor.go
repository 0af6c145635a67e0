package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/ice"
	"peerlink/internal/trace"
)

// newDoctor is the command that tells how a device is reached, or why not.
func newDoctor(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor NAME|DEVICE[@HOST:PORT]",
		Short: "Tell how a device is reached, or why it is not",
		Long:  "Connect to a device and tell the story: the record, the nodes that were asked, the\naddresses of both sides, each check and its result, the way that was taken, and, if that is a\nrelay, what speaks against a direct one. The exit status is 1 if the device was not reached.",
		Args:  usageArgs(cobra.ExactArgs(1)),

		ValidArgsFunction: o.completeContact,
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := o.target(args[0])
			if err != nil {
				return err
			}
			acc, err := o.startFor(cmd, to)
			if err != nil {
				return err
			}
			defer acc.Close()
			// Joining the DHT is not part of what is measured.
			ready := awaitReady(cmd.Context(), acc)
			d := examine(cmd.Context(), acc.ConnectionManager(), to)
			if ready != nil {
				d.Notes = append(d.Notes, "this device itself: "+ready.Error())
			}
			if o.json {
				(&printer{out: cmd.OutOrStdout()}).json(d)
			} else {
				d.print(cmd.OutOrStdout())
			}
			return d.err
		},
	}
}

// diagnosis is what doctor finds out.
type diagnosis struct {
	Step   string       `json:"step"`
	OK     bool         `json:"ok"`
	Device string       `json:"device"`
	Way    string       `json:"way,omitempty"` // of the link: direct, punched, relay; empty if not by ICE
	Path   string       `json:"path,omitempty"`
	Took   float64      `json:"connect_ms"`       // from ConnectDevice to the open channel
	First  float64      `json:"first_byte_ms"`    // from ConnectDevice to the first byte of the device
	RTT    float64      `json:"rtt_ms,omitempty"` // of the link
	Events []milestone  `json:"events"`
	ICE    []ice.Report `json:"ice"`
	Notes  []string     `json:"notes,omitempty"`
	Error  string       `json:"error,omitempty"`

	err error
}

// milestone is a step of the connect.
type milestone struct {
	At     float64 `json:"at_ms"`
	Step   string  `json:"step"`
	Detail string  `json:"detail"`
}

// examine connects and writes down what happens. The chat it opens is closed at
// once: the answer to the request is the first byte.
func examine(ctx context.Context, m *peerlink.ConnectionManager, to target) *diagnosis {
	d := &diagnosis{Step: "doctor", Device: to.device.String()}
	began := time.Now()
	since := func() float64 { return float64(time.Since(began).Microseconds()) / 1000 }
	var mu sync.Mutex
	told := trace.With(ctx, func(e trace.Event) {
		mu.Lock()
		defer mu.Unlock()
		d.Events = append(d.Events, milestone{float64(e.At.Sub(began).Microseconds()) / 1000, string(e.Step), e.Detail})
	})
	told = ice.WithReport(told, func(r ice.Report) {
		mu.Lock()
		defer mu.Unlock()
		d.ICE = append(d.ICE, r)
	})
	c, err := m.ConnectDevice(told, to.device, "chat://doctor", peerlink.ConnectOptions{})
	d.Took, d.First = since(), since()
	mu.Lock()
	defer mu.Unlock()
	d.Events, d.ICE = slices.Clone(d.Events), slices.Clone(d.ICE) // losers may still tell
	if err != nil {
		d.err, d.Error = err, err.Error()
		return d
	}
	d.OK = true
	for _, l := range m.Connections() {
		if l.Peer.Device == to.device {
			d.Path, d.RTT = l.Path, float64(l.RTT.Microseconds())/1000
		}
	}
	for _, r := range d.ICE {
		if r.Path == d.Path {
			d.Way = r.Way
		}
	}
	if d.Way == "" && d.Path != "" && len(d.ICE) > 0 {
		d.Notes = append(d.Notes, "the device called this one at the same moment, and its link came first: the request below tells what was tried until then")
	}
	_ = c.Close()
	return d
}

// print tells it to people.
func (d *diagnosis) print(w io.Writer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("device %s", d.Device)
	if d.OK {
		p("reached in %.1f ms, %s: %s", d.Took, strings.TrimSpace(d.Way+" path"), d.Path)
	} else {
		p("not reached, after %.1f ms: %s", d.Took, printable(d.Error))
	}
	for _, n := range d.Notes {
		p("note: %s", printable(n))
	}
	p("\nwhat happened")
	for _, e := range d.Events {
		p("%10.1f ms  %-16s %s", e.At, e.Step, printable(e.Detail))
	}
	for _, r := range d.ICE {
		p("\nICE request %s", r.Request)
		for _, side := range []struct {
			name string
			cs   []ice.CandidateReport
		}{{"here", r.Local}, {"there", r.Remote}} {
			for _, c := range side.cs {
				p("  %-6s %-4s %-7s %s", side.name, c.Engine, c.Type, c.Address)
			}
		}
		for _, s := range r.Silent {
			p("  server %s", printable(s))
		}
		for _, c := range r.Checks {
			mark := "no "
			if c.OK {
				mark = "yes"
			}
			p("  %s    %-4s %s: %s (%d×, last at %.1f ms)", mark, c.Engine, c.Target, printable(c.Result), c.Times, c.At)
		}
		if r.Relay != "" {
			p("  relayed by %s", r.Relay)
		}
		if r.WhyRelayed != "" {
			p("  relayed because %s", r.WhyRelayed)
		}
	}
}
