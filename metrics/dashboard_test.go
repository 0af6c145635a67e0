package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Every number on the dashboard exists, under that name.
func TestDashboardShowsWhatIsMeasured(t *testing.T) {
	b, err := os.ReadFile("../packaging/grafana/peerlink.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	quoted := regexp.MustCompile(`fqName: "([^"]+)"`)
	for _, c := range []prometheus.Collector{New(nil), NewDHT(nil)} {
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			c.Describe(descs)
		}()
		for d := range descs {
			known[quoted.FindStringSubmatch(d.String())[1]] = true
		}
	}
	queries := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries++
			for _, n := range regexp.MustCompile(`peerlink_[a-z_]+`).FindAllString(target.Expr, -1) {
				if !known[n] {
					t.Errorf("panel %q asks for %s, which is not measured", p.Title, n)
				}
			}
		}
	}
	if queries < 20 {
		t.Errorf("%d queries on the dashboard", queries)
	}
}
