package metrics

import (
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// Text returns what collectors tell now, in Prometheus's text format. It blocks
// as long as they do.
func Text(from ...prometheus.Collector) (string, error) {
	r, err := registry(from)
	if err != nil {
		return "", err
	}
	families, err := r.Gather()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// Handler serves what collectors tell to Prometheus. At most four requests are
// served at once.
func Handler(from ...prometheus.Collector) (http.Handler, error) {
	r, err := registry(from)
	if err != nil {
		return nil, err
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4}), nil
}

func registry(from []prometheus.Collector) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	var errs []error
	for _, c := range from {
		errs = append(errs, r.Register(c))
	}
	return r, errors.Join(errs...)
}
