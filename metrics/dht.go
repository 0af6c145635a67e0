package metrics

import "github.com/prometheus/client_golang/prometheus"

// DHT are a DHT node's numbers, as in dht.Health.
type DHT struct {
	Nodes, Connected, Neighbours, Holders, Subscriptions, Wanted int
	// Dropped counts signals and requests that were dropped, by cause.
	Dropped map[string]uint64
	// ClockAhead is in seconds.
	ClockAhead float64
}

// NewDHT returns a collector of what read tells, whenever it is asked; false
// means that there is no node. read may be called concurrently.
func NewDHT(read func() (DHT, bool)) prometheus.Collector { return dhtCollector(read) }

type dhtCollector func() (DHT, bool)

var (
	dhtNodes         = desc("dht_nodes", "Nodes that the routing table knows.")
	dhtConnected     = desc("dht_connected", "Nodes that are connected.")
	dhtNeighbours    = desc("dht_neighbours", "Peers on the local networks that were reached.")
	dhtHolders       = desc("dht_record_holders", "Nodes that showed this device's record; 0: nobody can find it.")
	dhtSubscriptions = desc("dht_subscriptions", "Nodes that push this device's signals.")
	dhtWanted        = desc("dht_subscriptions_wanted", "Nodes that should.")
	dhtDropped       = desc("dht_dropped_total", "Signals and requests that were dropped.", "cause")
	dhtClock         = desc("dht_clock_ahead_seconds", "How far this clock is ahead of the nodes' clocks.")
)

// Describe implements prometheus.Collector.
func (dhtCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{dhtNodes, dhtConnected, dhtNeighbours, dhtHolders, dhtSubscriptions, dhtWanted, dhtDropped, dhtClock} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (read dhtCollector) Collect(to chan<- prometheus.Metric) {
	h, ok := read()
	if !ok {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) { to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(dhtNodes, float64(h.Nodes))
	gauge(dhtConnected, float64(h.Connected))
	gauge(dhtNeighbours, float64(h.Neighbours))
	gauge(dhtHolders, float64(h.Holders))
	gauge(dhtSubscriptions, float64(h.Subscriptions))
	gauge(dhtWanted, float64(h.Wanted))
	gauge(dhtClock, h.ClockAhead)
	for cause, n := range h.Dropped {
		to <- prometheus.MustNewConstMetric(dhtDropped, prometheus.CounterValue, float64(n), cause)
	}
}
