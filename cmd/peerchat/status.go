package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/internal/pause"
)

// newStatus is the command that shows what the daemon holds.
func newStatus(o *options) *cobra.Command {
	s := &statusShow{o: o}
	cmd := plain("status", func(cmd *cobra.Command) error {
		if s.metrics && (s.watch || o.json) {
			return usageError{errors.New("--metrics has a format of its own, and is asked for once: leave --watch and --json out")}
		}
		if s.every < 100*time.Millisecond {
			return usageError{fmt.Errorf("--every %v: want 100ms at least", s.every)}
		}
		return s.run(cmd.Context(), control.NewClient(o.account), cmd.OutOrStdout())
	})
	cmd.Flags().BoolVarP(&s.watch, "watch", "w", false, "show it again and again, until interrupted")
	cmd.Flags().DurationVar(&s.every, "every", time.Second, "how often --watch looks")
	cmd.Flags().BoolVar(&s.metrics, "metrics", false, "print the numbers in Prometheus's text format")
	return cmd
}

type statusShow struct {
	o              *options
	watch, metrics bool
	every          time.Duration
}

func (s *statusShow) run(ctx context.Context, c *control.Client, out io.Writer) error {
	if s.metrics {
		m, err := control.OpMetrics.Ask(ctx, c, control.None{})
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, m)
		return err
	}
	for began := false; ; began = true {
		st, err := control.OpStatus.Ask(ctx, c, control.None{})
		switch {
		case began && errors.Is(err, control.ErrNoDaemon):
			err = fmt.Errorf("the daemon has ended: %w", err)
		case errors.Is(err, control.ErrNoDaemon):
			err = fmt.Errorf("%w (peerchat run starts one)", err)
		}
		if err != nil {
			return err
		}
		if err := s.show(out, st); err != nil || !s.watch {
			return err
		}
		if pause.For(ctx, s.every) != nil {
			return context.Cause(ctx)
		}
	}
}

// show prints a status. On a terminal --watch begins at the top each time.
func (s *statusShow) show(out io.Writer, st control.Status) error {
	if s.o.json {
		(&printer{out: out}).json(st)
		return nil
	}
	text := statusText(st, time.Now())
	switch {
	case s.watch && isTerminal(out):
		text = "\x1b[H\x1b[2J" + text
	case s.watch:
		text += "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}

// statusText is the table for people. Whatever a peer has chosen is escaped.
func statusText(st control.Status, now time.Time) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("device     %s", st.Self.Device)
	p("account    %s (%s)", printable(st.Folder), printable(st.Self.Name))
	p("daemon     process %d, for %s", st.PID, ago(now, st.Since))
	if len(st.Listens) > 0 {
		p("tcp        %s", strings.Join(st.Listens, ", "))
	}
	if st.Reachable {
		p("reachable  yes")
	} else {
		p("reachable  not yet: %s", printable(st.Why))
	}
	for _, s := range st.Problems {
		p("problem    %s", printable(s))
	}
	if h := st.DHT; h != nil {
		p("dht        %d nodes known, %d connected, %d neighbours; record on %d; %d of %d push to us%s",
			h.Table, h.Connected, h.Neighbours, h.Holders, h.Subscriptions, h.Wanted, dropped(h.Dropped))
	} else {
		p("dht        none")
	}
	if len(st.Claims) > 0 {
		p("listening  %s", printable(strings.Join(st.Claims, ", ")))
	}
	t := st.Totals
	p("traffic    %s sent, %s received; %d links and %d channels now; %d links failed, %d devices refused, %d channels declined",
		humanize.IBytes(t.BytesSent), humanize.IBytes(t.BytesReceived), t.Links, t.Channels, t.Failed, t.Refused, t.Declined)
	if len(st.Links) == 0 {
		p("\nno links")
		return b.String()
	}
	p("")
	b.WriteString(linkTable(st.Links, now))
	return b.String()
}

func dropped(by map[string]uint64) string {
	var all uint64
	for _, n := range by {
		all += n
	}
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("; %d signals dropped", all)
}

// linkTable has a line for each link, its addresses below it, and a line for
// each channel.
func linkTable(links []control.Link, now time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINK\tPEER\tCARRIER\tBEGAN\tROUND TRIP\tSENT\tRECEIVED\tFRAMES\tSTALLS\tUP")
	var below []func()
	for _, l := range links {
		rtt := "–"
		if l.RTT > 0 {
			rtt = l.RTT.Round(10 * time.Microsecond).String()
		}
		carrier := l.Carrier
		if l.Way != "" {
			carrier += ", " + l.Way
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", l.ID, printable(called(l)), printable(carrier), map[peerlink.Direction]string{peerlink.Outbound: "here", peerlink.Inbound: "there"}[l.Direction],
			rtt, humanize.IBytes(l.BytesSent), humanize.IBytes(l.BytesReceived), l.FramesReceived, l.Stalls, ago(now, l.Created))
		below = append(below, func() { channelLines(&b, l) })
	}
	_ = w.Flush()
	for _, f := range below {
		f()
	}
	return b.String()
}

func channelLines(b *strings.Builder, l control.Link) {
	fmt.Fprintf(b, "\n%s  %s\n", l.ID, l.Peer.Device)
	path := l.Path.String()
	if path != "" {
		fmt.Fprintf(b, "     path %s\n", printable(path))
	}
	if l.Local != "" && l.Remote != "" && !strings.Contains(path, l.Remote) {
		fmt.Fprintf(b, "     from %s to %s\n", printable(l.Local), printable(l.Remote))
	}
	if l.WhyRelayed != "" {
		fmt.Fprintf(b, "     relayed because %s\n", printable(l.WhyRelayed))
	}
	chs := slices.Clone(l.Channels)
	slices.SortFunc(chs, func(x, y peerlink.ChannelInfo) int { return x.Created.Compare(y.Created) })
	const most = 50 // a person reads no more; --json has them all
	for _, ch := range chs[:min(len(chs), most)] {
		fmt.Fprintf(b, "     channel %-5d %s, %s, %s sent, %s received\n", ch.ID, printable(ch.URI), ch.Direction,
			humanize.IBytes(ch.BytesSent), humanize.IBytes(ch.BytesReceived))
	}
	if len(chs) > most {
		fmt.Fprintf(b, "     and %d more channels\n", len(chs)-most)
	}
}

// called is what a link's peer is called here, or else what it calls itself.
func called(l control.Link) string {
	if l.Contact != "" {
		return l.Contact
	}
	return fmt.Sprintf("%s (%s)", l.Peer.Name, l.Peer.Device.Short())
}

func ago(now, then time.Time) string {
	return max(now.Sub(then), 0).Round(time.Second).String()
}
