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

// figure is a number that is read from a T.
type figure[T any] struct {
	*prometheus.Desc
	kind prometheus.ValueType
	of   func(T) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("peerlink_"+name, help, labels, nil)
}

func gauge[T any](name, help string, of func(T) float64, labels ...string) figure[T] {
	return figure[T]{desc(name, help, labels...), prometheus.GaugeValue, of}
}

func counter[T any](name, help string, of func(T) uint64, labels ...string) figure[T] {
	return figure[T]{desc(name, help, labels...), prometheus.CounterValue, func(t T) float64 { return float64(of(t)) }}
}

// describe tells which figures there are.
func describe[T any](to chan<- *prometheus.Desc, figures []figure[T]) {
	for _, f := range figures {
		to <- f.Desc
	}
}

// collect tells the figures of from, which all have these labels.
func collect[T any](to chan<- prometheus.Metric, figures []figure[T], from T, labels ...string) {
	for _, f := range figures {
		to <- prometheus.MustNewConstMetric(f.Desc, f.kind, f.of(from), labels...)
	}
}

var (
	links     = desc("links", "Links that are up.", "carrier", "direction")
	roundTrip = desc("round_trip_seconds", "Round-trip time of the links, the longest and the shortest of each carrier.", "carrier", "which")
)

// whole are the figures of a manager as a whole.
var whole = []figure[peerlink.Metrics]{
	gauge("connecting", "Connects under way.", func(m peerlink.Metrics) float64 { return float64(m.Connecting) }),
	counter("connects_failed_total", "Connects that ended without a link.", func(m peerlink.Metrics) uint64 { return m.Failed }),
	counter("devices_refused_total", "Calls of devices that were refused.", func(m peerlink.Metrics) uint64 { return m.Refused }),
	counter("channels_accepted_total", "Channels that peers asked for and got.", func(m peerlink.Metrics) uint64 { return m.Accepted }),
	counter("channels_declined_total", "Channels that peers asked for and did not get.", func(m peerlink.Metrics) uint64 { return m.Declined }),
	counter("channels_retried_total", "Channel requests sent again after their link was lost.", func(m peerlink.Metrics) uint64 { return m.Retried }),
	counter("callback_panics_total", "Callbacks of the application that panicked.", func(m peerlink.Metrics) uint64 { return m.Panics }),
}

// alive are the figures of each carrier's links that are up.
var alive = []figure[*live]{
	gauge("channels", "Channels that are open.", func(l *live) float64 { return float64(l.channels) }, "carrier"),
	gauge("unread_bytes", "Bytes received that wait to be read.", func(l *live) float64 { return float64(l.unread) }, "carrier"),
	gauge("oldest_link_seconds", "Age of the oldest link.", func(l *live) float64 { return time.Since(l.created).Seconds() }, "carrier"),
	gauge("idle_link_seconds", "Time since a channel of the link that is idle for longest came about or carried data.", func(l *live) float64 { return time.Since(l.active).Seconds() }, "carrier"),
}

// totals are the counters of each carrier.
var totals = []figure[peerlink.Totals]{
	counter("links_opened_total", "Links that came up.", func(t peerlink.Totals) uint64 { return t.Opened }, "carrier"),
	counter("links_closed_total", "Links that ended.", func(t peerlink.Totals) uint64 { return t.Closed }, "carrier"),
	counter("attempts_failed_total", "Attempts of a carrier to reach a device that failed.", func(t peerlink.Totals) uint64 { return t.Failed }, "carrier"),
	counter("sent_bytes_total", "Bytes sent on links, frames' headers and datagrams included.", func(t peerlink.Totals) uint64 { return t.BytesSent }, "carrier"),
	counter("received_bytes_total", "Bytes received on links, frames' headers and datagrams included.", func(t peerlink.Totals) uint64 { return t.BytesReceived }, "carrier"),
	counter("sent_frames_total", "Frames of channels' data sent on links.", func(t peerlink.Totals) uint64 { return t.FramesSent }, "carrier"),
	counter("received_frames_total", "Frames received on links.", func(t peerlink.Totals) uint64 { return t.FramesReceived }, "carrier"),
	counter("stalls_total", "Times that Writes on channels had to wait for credit.", func(t peerlink.Totals) uint64 { return t.Stalls }, "carrier"),
	counter("would_block_total", "Times that a message was not sent because it would have had to wait.", func(t peerlink.Totals) uint64 { return t.WouldBlocks }, "carrier"),
	counter("sent_datagrams_total", "Datagrams sent.", func(t peerlink.Totals) uint64 { return t.DatagramsSent }, "carrier"),
	counter("received_datagrams_total", "Datagrams received.", func(t peerlink.Totals) uint64 { return t.DatagramsReceived }, "carrier"),
	counter("dropped_datagrams_total", "Datagrams received and dropped: not read in time, or of no channel.", func(t peerlink.Totals) uint64 { return t.DatagramsDropped }, "carrier"),
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	to <- links
	to <- roundTrip
	describe(to, whole)
	describe(to, alive)
	describe(to, totals)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	m := c.from.Metrics()
	for name, of := range m.Carriers {
		collect(to, totals, of, name)
	}
	collect(to, whole, m)
	now := summarize(c.from.Connections())
	one := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for k, n := range now.links {
		one(links, float64(n), k.carrier, k.direction)
	}
	for carrier, of := range now.carriers {
		collect(to, alive, of, carrier)
		if of.longest > 0 {
			one(roundTrip, of.longest.Seconds(), carrier, "longest")
			one(roundTrip, of.shortest.Seconds(), carrier, "shortest")
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
