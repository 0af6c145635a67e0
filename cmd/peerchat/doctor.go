package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/ice"
)

// newDoctor is the command that tells how a device is reached, or why not.
func newDoctor(o *options) *cobra.Command {
	return o.toContact("doctor", counted(cobra.ExactArgs(1)), func(cmd *cobra.Command, args []string) error {
		return o.withDevice(cmd, args[0], func(s *session, to target) error { return o.doctor(cmd, s, to) })
	})
}

func (o *options) doctor(cmd *cobra.Command, s *session, to target) error {
	ctx := cmd.Context()
	// Joining the DHT is not part of what is measured.
	notReady := s.ready(ctx)
	d, err := daemon.OpDoctor.Ask(ctx, s.client, control.Examine{Device: to.device, Addr: to.addr})
	if err != nil {
		return err
	}
	if st, err := s.status(ctx); err == nil && st.DHT == nil && !d.OK {
		d.Notes = append(d.Notes, noNodes)
	}
	if notReady != nil {
		d.Notes = append(d.Notes, "this device itself: "+notReady.Error())
	}
	if o.json {
		printerOf(cmd).json(d)
	} else {
		out := cmd.OutOrStdout()
		printDiagnosis(out, d, os.Getenv("NO_COLOR") == "" && isTerminal(out))
	}
	if !d.OK {
		return errors.New(d.Error)
	}
	return nil
}

// printDiagnosis tells it to people. What others have chosen is escaped.
func printDiagnosis(w io.Writer, d *daemon.Diagnosis, colour bool) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("device %s", d.Device)
	switch {
	case d.OK && d.Linked > 0:
		p("linked for %v, %s: %s; a channel took %.1f ms", milliseconds(d.Linked).Round(time.Second), strings.TrimSpace(d.Way+" path"), printable(d.Path), d.Took)
	case d.OK:
		p("reached in %.1f ms, %s: %s", d.Took, strings.TrimSpace(d.Way+" path"), printable(d.Path))
	default:
		p("not reached, after %.1f ms: %s", d.Took, printable(d.Error))
	}
	for _, n := range d.Notes {
		p("note: %s", printable(n))
	}
	drawHops(w, d, colour)
	if len(d.Events) > 0 && d.Linked > 0 {
		p("\nwhat happened when the link was made")
	} else if len(d.Events) > 0 {
		p("\nwhat happened")
	}
	for _, e := range d.Events {
		p("%10.1f ms  %-16s %s", e.At, e.Step, printable(e.Detail))
	}
	for _, r := range d.ICE {
		printRequest(w, r)
	}
}

func printRequest(w io.Writer, r ice.Report) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("\nICE request %s", printable(r.Request))
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

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// stations are how the hops of a path are drawn: a sign, what it is, and a
// colour of the terminal.
var stations = map[string]struct{ sign, name, colour string }{
	daemon.HopHere:   {"●", "this device", "32"},
	daemon.HopNAT:    {"◇", "NAT", "33"},
	daemon.HopRelay:  {"■", "relay", "35"},
	daemon.HopBroken: {"✗", "no way was found", "31"},
	daemon.HopThere:  {"●", "", "32"},
}

// drawHops draws the path, one station below the other, so that it fits any
// terminal.
func drawHops(w io.Writer, d *daemon.Diagnosis, colour bool) {
	if len(d.Hops) > 0 {
		fmt.Fprintln(w)
	}
	for i, h := range d.Hops {
		s := stations[h.Kind]
		sign := s.sign
		if colour && s.colour != "" {
			sign = "\x1b[" + s.colour + "m" + sign + "\x1b[0m"
		}
		name := s.name
		if h.Kind == daemon.HopThere {
			name = printable(h.Name)
		}
		line := fmt.Sprintf("  %s %-12s %s", sign, name, printable(h.Addr))
		if h.Kind == daemon.HopRelay && h.Name != "" {
			line += " (" + printable(h.Name) + ")"
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		if i == len(d.Hops)-1 {
			break
		}
		by := printable(h.By)
		if i == 0 && d.RTT > 0 {
			by += fmt.Sprintf(", %.1f ms there and back", d.RTT)
		}
		fmt.Fprintln(w, strings.TrimRight("  │ "+by, " "))
	}
}
