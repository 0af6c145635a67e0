package metrics_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"peerlink"
	"peerlink/identity"
	"peerlink/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a source of known numbers.
type fixed struct{}

func (fixed) Metrics() peerlink.Metrics {
	return peerlink.Metrics{
		Totals: peerlink.Totals{Failed: 2}, Connecting: 1, Refused: 3, Accepted: 40, Declined: 5, Retried: 6, Panics: 7, Channels: 8,
		Carriers: map[string]peerlink.Totals{
			"tcp": {Opened: 4, Closed: 1, Links: 3, Failed: 2, Traffic: peerlink.Traffic{
				BytesSent: 1000, BytesReceived: 2000, FramesSent: 10, FramesReceived: 20, Stalls: 9, WouldBlocks: 8,
			}},
			"ice": {Opened: 1, Links: 1, Traffic: peerlink.Traffic{
				BytesSent: 1, BytesReceived: 2, DatagramsSent: 3, DatagramsReceived: 4, DatagramsDropped: 5,
			}},
		},
	}
}

func (fixed) Connections() []peerlink.Connection {
	return []peerlink.Connection{
		{Carrier: "tcp", Direction: peerlink.Outbound, RTT: 10 * time.Millisecond, Unread: 5, Channels: make([]peerlink.ChannelInfo, 3)},
		{Carrier: "tcp", Direction: peerlink.Outbound, RTT: 30 * time.Millisecond, Unread: 6},
		{Carrier: "tcp", Direction: peerlink.Inbound},
		{Carrier: "ice", Direction: peerlink.Inbound, RTT: time.Second},
	}
}

const want = `
# HELP peerlink_channels Channels that are open.
# TYPE peerlink_channels gauge
peerlink_channels{carrier="ice"} 0
peerlink_channels{carrier="tcp"} 3
# HELP peerlink_devices_refused_total Calls of devices that were refused.
# TYPE peerlink_devices_refused_total counter
peerlink_devices_refused_total 3
# HELP peerlink_dropped_datagrams_total Datagrams received and dropped: not read in time, or of no channel.
# TYPE peerlink_dropped_datagrams_total counter
peerlink_dropped_datagrams_total{carrier="ice"} 5
peerlink_dropped_datagrams_total{carrier="tcp"} 0
# HELP peerlink_links Links that are up.
# TYPE peerlink_links gauge
peerlink_links{carrier="ice",direction="inbound"} 1
peerlink_links{carrier="tcp",direction="inbound"} 1
peerlink_links{carrier="tcp",direction="outbound"} 2
# HELP peerlink_links_opened_total Links that came up.
# TYPE peerlink_links_opened_total counter
peerlink_links_opened_total{carrier="ice"} 1
peerlink_links_opened_total{carrier="tcp"} 4
# HELP peerlink_received_bytes_total Bytes received on links, frames' headers and datagrams included.
# TYPE peerlink_received_bytes_total counter
peerlink_received_bytes_total{carrier="ice"} 2
peerlink_received_bytes_total{carrier="tcp"} 2000
# HELP peerlink_round_trip_seconds Round-trip time of the links, the longest and the shortest of each carrier.
# TYPE peerlink_round_trip_seconds gauge
peerlink_round_trip_seconds{carrier="ice",which="longest"} 1
peerlink_round_trip_seconds{carrier="ice",which="shortest"} 1
peerlink_round_trip_seconds{carrier="tcp",which="longest"} 0.03
peerlink_round_trip_seconds{carrier="tcp",which="shortest"} 0.01
# HELP peerlink_sent_frames_total Frames of channels' data sent on links.
# TYPE peerlink_sent_frames_total counter
peerlink_sent_frames_total{carrier="ice"} 0
peerlink_sent_frames_total{carrier="tcp"} 10
# HELP peerlink_stalls_total Times that Writes on channels had to wait for credit.
# TYPE peerlink_stalls_total counter
peerlink_stalls_total{carrier="ice"} 0
peerlink_stalls_total{carrier="tcp"} 9
# HELP peerlink_unread_bytes Bytes received that wait to be read.
# TYPE peerlink_unread_bytes gauge
peerlink_unread_bytes{carrier="ice"} 0
peerlink_unread_bytes{carrier="tcp"} 11
# HELP peerlink_would_block_total Times that a message was not sent because it would have had to wait.
# TYPE peerlink_would_block_total counter
peerlink_would_block_total{carrier="ice"} 0
peerlink_would_block_total{carrier="tcp"} 8
`

func TestNumbersAreShownByCarrier(t *testing.T) {
	names := []string{
		"peerlink_channels", "peerlink_devices_refused_total", "peerlink_dropped_datagrams_total",
		"peerlink_sent_frames_total", "peerlink_stalls_total", "peerlink_would_block_total", "peerlink_links", "peerlink_links_opened_total",
		"peerlink_received_bytes_total", "peerlink_round_trip_seconds", "peerlink_unread_bytes",
	}
	if err := testutil.CollectAndCompare(metrics.New(fixed{}), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(metrics.New(fixed{})); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if err := prometheus.NewPedanticRegistry().Register(metrics.New(fixed{})); err != nil {
		t.Error(err)
	}
}

func TestManagersNumbersAreTold(t *testing.T) {
	var ms [2]*peerlink.ConnectionManager
	var ids [2]*identity.Identity
	for i, name := range []string{"alice", "bob"} {
		id, err := identity.Generate(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := peerlink.New(peerlink.Config{Identity: id})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ms[i], ids[i] = m, id
	}
	a, b := net.Pipe()
	go func() { _, _ = ms[1].AddConn(context.Background(), b, ids[0].Peer(), peerlink.Inbound) }()
	if _, err := ms[0].AddConn(context.Background(), a, ids[1].Peer(), peerlink.Outbound); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(ms[0]))
	n, err := testutil.GatherAndCount(registry, "peerlink_links")
	if err != nil || n != 1 {
		t.Errorf("%d series of links, %v", n, err)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader("# HELP peerlink_links Links that are up.\n# TYPE peerlink_links gauge\npeerlink_links{carrier=\"adopted\",direction=\"outbound\"} 1\n"), "peerlink_links"); err != nil {
		t.Error(err)
	}
}
