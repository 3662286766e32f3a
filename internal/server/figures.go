package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/kms"
)

// figures are the store's own figures on /metrics: how the keys stand, and whether requests can be recorded. Label values
// are from closed sets; no name of a key or principal is one.
type figures struct {
	compliance func(context.Context) (kms.Compliance, error)
	ready      func() error
	keys       *prometheus.Desc
	up         *prometheus.Desc
	build      *prometheus.Desc
}

func newFigures(compliance func(context.Context) (kms.Compliance, error), ready func() error) *figures {
	return &figures{
		compliance: compliance, ready: ready,
		keys:  prometheus.NewDesc("keyturn_keys", "Keys by how they stand against their cryptoperiod.", []string{"compliance"}, nil),
		up:    prometheus.NewDesc("keyturn_ready", "1 while requests can be served and recorded.", nil, nil),
		build: prometheus.NewDesc("keyturn_build_info", "1, with the version as a label.", []string{"version"}, nil),
	}
}

// Describe is prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) {
	ch <- f.keys
	ch <- f.up
	ch <- f.build
}

// Collect is prometheus.Collector. Counts that can't be read now are left out of the scrape, which a rule on absence finds.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	gauge(f.build, 1, buildinfo.String())
	up := 1.0
	if f.ready() != nil {
		up = 0
	}
	gauge(f.up, up)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := f.compliance(ctx)
	if err != nil {
		return
	}
	gauge(f.keys, float64(c.Keys-c.DueSoon-c.Overdue), "compliant")
	gauge(f.keys, float64(c.DueSoon), "due_soon")
	gauge(f.keys, float64(c.Overdue), "overdue")
}
