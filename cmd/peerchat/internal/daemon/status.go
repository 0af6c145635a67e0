package daemon

import (
	"context"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/metrics"
)

// readyWait is how long a status waits to learn what a device that is not
// reachable lacks.
const readyWait = 20 * time.Millisecond

// status answers how all fares.
func (d *Daemon) status(ctx context.Context, _ control.None) (control.Status, error) {
	m := d.acc.ConnectionManager()
	s := control.Status{
		PID: os.Getpid(), Since: d.since, Folder: d.acc.Dir(),
		Self: d.acc.Identity().Peer(), Listens: d.acc.Addrs(),
		Links: []control.Link{}, Totals: m.Metrics(), Claims: d.claimed(), Problems: d.trouble(),
	}
	if h, has := d.acc.DHT(); has {
		s.DHT = &h
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	if err := d.acc.Ready(ctx); err != nil {
		s.Why = err.Error()
	} else {
		s.Reachable = true
	}
	for l := range m.Links() {
		s.Links = append(s.Links, d.link(l))
	}
	return s, nil
}

func (d *Daemon) claimed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.claims) == 0 {
		return []string{}
	}
	return slices.Sorted(maps.Keys(d.claims))
}

// link describes a link, with what is remembered of how it came about.
func (d *Daemon) link(c peerlink.Connection) control.Link {
	of, _ := d.contacts.OfPeer(c.Peer)
	l := control.Link{Connection: c, Contact: of.Name, Local: addrText(c.LocalAddr), Remote: addrText(c.RemoteAddr)}
	if l.Channels == nil {
		l.Channels = []peerlink.ChannelInfo{}
	}
	if r, ok := d.report(c.Peer.Device, c.Path); ok {
		l.Way, l.WhyRelayed = r.Way, r.WhyRelayed
	}
	return l
}

// metrics answers the numbers for Prometheus.
func (d *Daemon) metrics(context.Context, control.None) (string, error) {
	return metrics.Text(metrics.New(d.acc.ConnectionManager()), metrics.NewDHT(d.dhtMetrics))
}

// MetricsHandler serves the account's numbers to Prometheus.
func (d *Daemon) MetricsHandler() (http.Handler, error) {
	return metrics.Handler(metrics.New(d.acc.ConnectionManager()), metrics.NewDHT(d.dhtMetrics))
}

func (d *Daemon) dhtMetrics() (metrics.DHT, bool) {
	h, has := d.acc.DHT()
	return metrics.DHT{
		Nodes: h.Table, Connected: h.Connected, Neighbours: h.Neighbours, Holders: h.Holders,
		Subscriptions: h.Subscriptions, Wanted: h.Wanted, Dropped: h.Dropped, ClockAhead: h.ClockAhead.Seconds(),
	}, has
}

// connected says whether there is a link to a device.
func (d *Daemon) connected(id identity.DeviceID) bool {
	return d.acc.ConnectionManager().IsConnected(id)
}
