package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTextAndHandlerTellTheSame(t *testing.T) {
	node := NewDHT(func() (DHT, bool) {
		return DHT{Nodes: 3, Holders: 2, Dropped: map[string]uint64{"stale": 5}, ClockAhead: 0.25}, true
	})
	none := NewDHT(func() (DHT, bool) { return DHT{}, false })
	text, err := Text(node)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"peerlink_dht_nodes 3\n", "peerlink_dht_record_holders 2\n",
		"peerlink_dht_dropped_total{cause=\"stale\"} 5\n", "peerlink_dht_clock_ahead_seconds 0.25\n",
		"# TYPE peerlink_dht_dropped_total counter\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if text, err := Text(none); err != nil || text != "" {
		t.Errorf("without a node: %q, %v", text, err)
	}
	if _, err := Text(node, none); err == nil {
		t.Error("two collectors of the same numbers were taken")
	}
	h, err := Handler(node)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if b, _ := io.ReadAll(rec.Body); rec.Code != http.StatusOK || string(b) != text {
		t.Errorf("served %d:\n%s\nwant:\n%s", rec.Code, b, text)
	}
}
