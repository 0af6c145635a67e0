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

var dhtFigures = []figure[DHT]{
	gauge("dht_nodes", "Nodes that the routing table knows.", func(h DHT) float64 { return float64(h.Nodes) }),
	gauge("dht_connected", "Nodes that are connected.", func(h DHT) float64 { return float64(h.Connected) }),
	gauge("dht_neighbours", "Peers on the local networks that were reached.", func(h DHT) float64 { return float64(h.Neighbours) }),
	gauge("dht_record_holders", "Nodes that showed this device's record; 0: nobody can find it.", func(h DHT) float64 { return float64(h.Holders) }),
	gauge("dht_subscriptions", "Nodes that push this device's signals.", func(h DHT) float64 { return float64(h.Subscriptions) }),
	gauge("dht_subscriptions_wanted", "Nodes that should.", func(h DHT) float64 { return float64(h.Wanted) }),
	gauge("dht_clock_ahead_seconds", "How far this clock is ahead of the nodes' clocks.", func(h DHT) float64 { return h.ClockAhead }),
}

var dhtDropped = desc("dht_dropped_total", "Signals and requests that were dropped.", "cause")

// Describe implements prometheus.Collector.
func (dhtCollector) Describe(to chan<- *prometheus.Desc) {
	to <- dhtDropped
	describe(to, dhtFigures)
}

// Collect implements prometheus.Collector.
func (read dhtCollector) Collect(to chan<- prometheus.Metric) {
	h, ok := read()
	if !ok {
		return
	}
	collect(to, dhtFigures, h)
	for cause, n := range h.Dropped {
		to <- prometheus.MustNewConstMetric(dhtDropped, prometheus.CounterValue, float64(n), cause)
	}
}
