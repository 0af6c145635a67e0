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
	sent       = desc("sent_bytes_total", "Bytes sent on links, frames' headers included.", "carrier")
	received   = desc("received_bytes_total", "Bytes received on links, frames' headers included.", "carrier")
	connecting = desc("connecting", "Connects under way.")
	failed     = desc("connects_failed_total", "Connects that ended without a link.")
	refused    = desc("devices_refused_total", "Calls of devices that were refused.")
	accepted   = desc("channels_accepted_total", "Channels that peers asked for and got.")
	declined   = desc("channels_declined_total", "Channels that peers asked for and did not get.")
	retried    = desc("channels_retried_total", "Channel requests sent again after their link was lost.")
	panics     = desc("callback_panics_total", "Callbacks of the application that panicked.")
	channels   = desc("channels", "Channels that are open.")
	stalls     = desc("channel_stalls", "Times that Writes on open channels had to wait for credit.")
	unread     = desc("unread_bytes", "Bytes received that wait to be read.")
	roundTrip  = desc("round_trip_seconds", "Round-trip time of the links, the longest and the shortest of each carrier.", "carrier", "which")
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		links, opened, closed, attempts, sent, received, connecting, failed,
		refused, accepted, declined, retried, panics, channels, stalls, unread, roundTrip,
	} {
		to <- d
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
	t := c.from.Metrics()
	for name, of := range t.Carriers {
		counter(opened, of.Opened, name)
		counter(closed, of.Closed, name)
		counter(attempts, of.Failed, name)
		counter(sent, of.BytesSent, name)
		counter(received, of.BytesReceived, name)
	}
	counter(failed, t.Failed)
	counter(refused, t.Refused)
	counter(accepted, t.Accepted)
	counter(declined, t.Declined)
	counter(retried, t.Retried)
	counter(panics, t.Panics)
	gauge(connecting, float64(t.Connecting))
	gauge(channels, float64(t.Channels))
	gauge(stalls, float64(t.Stalls))
	live := summarize(c.from.Connections())
	gauge(unread, float64(live.unread))
	for k, n := range live.links {
		gauge(links, float64(n), k.carrier, k.direction)
	}
	for carrier, r := range live.trips {
		gauge(roundTrip, r.longest.Seconds(), carrier, "longest")
		gauge(roundTrip, r.shortest.Seconds(), carrier, "shortest")
	}
}

type kind struct{ carrier, direction string }

type span struct{ shortest, longest time.Duration }

type summary struct {
	links  map[kind]int
	trips  map[string]span
	unread int64
}

// summarize adds up the live links.
func summarize(cs []peerlink.Connection) summary {
	s := summary{links: map[kind]int{}, trips: map[string]span{}}
	for _, c := range cs {
		s.links[kind{c.Carrier, c.Direction.String()}]++
		s.unread += c.Unread
		if c.RTT == 0 { // not known yet
			continue
		}
		r, known := s.trips[c.Carrier]
		if !known {
			r = span{c.RTT, c.RTT}
		}
		s.trips[c.Carrier] = span{min(r.shortest, c.RTT), max(r.longest, c.RTT)}
	}
	return s
}
