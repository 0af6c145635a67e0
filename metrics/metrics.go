// Package metrics shows a connection manager's numbers to Prometheus.
//
//	registry.MustRegister(metrics.New(manager))
//	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
//
// The numbers are read when they are asked for; nothing runs in between. Labels
// are carriers and directions only: device ids would let every caller make
// another series.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"peerlink"
)

// Source has the numbers; *peerlink.ConnectionManager is one.
type Source interface {
	Metrics() peerlink.Metrics
	Connections() []peerlink.Connection
}

// Collector is a prometheus.Collector over one manager. Its methods may be
// called concurrently and block for as long as the manager's lists take: about
// a microsecond per channel.
type Collector struct{ from Source }

// New returns the collector of a manager.
func New(from Source) *Collector { return &Collector{from} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("peerlink_"+name, help, labels, nil)
}

var (
	links      = desc("links", "Links that are up.", "carrier", "direction")
	opened     = desc("links_opened_total", "Links that came up.", "carrier")
	closed     = desc("links_closed_total", "Links that ended.", "carrier")
	attempts   = desc("attempts_failed_total", "Attempts of a carrier to reach a device that failed.", "carrier")
	connecting = desc("connecting", "Connects under way.")
	failed     = desc("connects_failed_total", "Connects that ended without a link.")
	refused    = desc("devices_refused_total", "Calls of devices that were refused.")
	accepted   = desc("channels_accepted_total", "Channels that peers asked for and got.")
	declined   = desc("channels_declined_total", "Channels that peers asked for and did not get.")
	retried    = desc("channels_retried_total", "Channel requests sent again after their link was lost.")
	panics     = desc("callback_panics_total", "Callbacks of the application that panicked.")
	channels   = desc("channels", "Channels that are open.", "carrier")
	unread     = desc("unread_bytes", "Bytes received that wait to be read.", "carrier")
	roundTrip  = desc("round_trip_seconds", "Round-trip time of the links, the longest and the shortest of each carrier.", "carrier", "which")
	oldest     = desc("oldest_link_seconds", "Age of the oldest link.", "carrier")
	idle       = desc("idle_link_seconds", "Time since a channel of the link that is idle for longest came about or carried data.", "carrier")
)

// totals are the counters of each carrier.
var totals = []struct {
	*prometheus.Desc
	of func(peerlink.Totals) uint64
}{
	{opened, func(t peerlink.Totals) uint64 { return t.Opened }},
	{closed, func(t peerlink.Totals) uint64 { return t.Closed }},
	{attempts, func(t peerlink.Totals) uint64 { return t.Failed }},
	{desc("sent_bytes_total", "Bytes sent on links, frames' headers and datagrams included.", "carrier"), func(t peerlink.Totals) uint64 { return t.BytesSent }},
	{desc("received_bytes_total", "Bytes received on links, frames' headers and datagrams included.", "carrier"), func(t peerlink.Totals) uint64 { return t.BytesReceived }},
	{desc("sent_frames_total", "Frames of channels' data sent on links.", "carrier"), func(t peerlink.Totals) uint64 { return t.FramesSent }},
	{desc("received_frames_total", "Frames received on links.", "carrier"), func(t peerlink.Totals) uint64 { return t.FramesReceived }},
	{desc("stalls_total", "Times that Writes on channels had to wait for credit.", "carrier"), func(t peerlink.Totals) uint64 { return t.Stalls }},
	{desc("would_block_total", "Times that a message was not sent because it would have had to wait.", "carrier"), func(t peerlink.Totals) uint64 { return t.WouldBlocks }},
	{desc("sent_datagrams_total", "Datagrams sent.", "carrier"), func(t peerlink.Totals) uint64 { return t.DatagramsSent }},
	{desc("received_datagrams_total", "Datagrams received.", "carrier"), func(t peerlink.Totals) uint64 { return t.DatagramsReceived }},
	{desc("dropped_datagrams_total", "Datagrams received and dropped: not read in time, or of no channel.", "carrier"), func(t peerlink.Totals) uint64 { return t.DatagramsDropped }},
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		links, connecting, failed, refused, accepted, declined, retried, panics, channels, unread, roundTrip, oldest, idle,
	} {
		to <- d
	}
	for _, t := range totals {
		to <- t.Desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m := c.from.Metrics()
	for name, of := range m.Carriers {
		for _, t := range totals {
			counter(t.Desc, t.of(of), name)
		}
	}
	counter(failed, m.Failed)
	counter(refused, m.Refused)
	counter(accepted, m.Accepted)
	counter(declined, m.Declined)
	counter(retried, m.Retried)
	counter(panics, m.Panics)
	gauge(connecting, float64(m.Connecting))
	live, now := summarize(c.from.Connections()), time.Now()
	for k, n := range live.links {
		gauge(links, float64(n), k.carrier, k.direction)
	}
	for carrier, of := range live.carriers {
		gauge(channels, float64(of.channels), carrier)
		gauge(unread, float64(of.unread), carrier)
		gauge(oldest, now.Sub(of.created).Seconds(), carrier)
		gauge(idle, now.Sub(of.active).Seconds(), carrier)
		if of.longest > 0 {
			gauge(roundTrip, of.longest.Seconds(), carrier, "longest")
			gauge(roundTrip, of.shortest.Seconds(), carrier, "shortest")
		}
	}
}

type kind struct{ carrier, direction string }

type summary struct {
	links    map[kind]int
	carriers map[string]*live
}

// live is what the links of a carrier have in sum.
type live struct {
	channels          int
	unread            int64
	shortest, longest time.Duration // round trips; 0: none is known
	created, active   time.Time     // the earliest of each
}

// summarize adds up the live links.
func summarize(cs []peerlink.Connection) summary {
	s := summary{links: map[kind]int{}, carriers: map[string]*live{}}
	for _, c := range cs {
		s.links[kind{c.Carrier, c.Direction.String()}]++
		l := s.carriers[c.Carrier]
		if l == nil {
			l = &live{created: c.Created, active: c.LastActivity}
			s.carriers[c.Carrier] = l
		}
		l.channels += len(c.Channels)
		l.unread += c.Unread
		l.created, l.active = earlier(l.created, c.Created), earlier(l.active, c.LastActivity)
		if c.RTT > 0 && (l.shortest == 0 || c.RTT < l.shortest) {
			l.shortest = c.RTT
		}
		l.longest = max(l.longest, c.RTT)
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
