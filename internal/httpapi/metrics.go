package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts requests for Prometheus. Every label value comes from a closed set that is known when the table is
// built: the row's own pattern, its method, the class of the status. A hundred thousand different paths, principals or
// keys make no new series.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	rows     map[*Route]*rowMetrics // written while the table is built, only read afterwards
}

// rowMetrics holds the series of one row, looked up beforehand.
type rowMetrics struct {
	byClass [6]prometheus.Counter // by the status's first digit
	seconds prometheus.Observer
}

// unrouted is the label of every request that reached no row.
const unrouted = "none"

// NewMetrics makes the registry with the Go runtime's and the process's own figures in it.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyturn_http_requests_total", Help: "Requests answered, by route and class of status."}, []string{"method", "route", "class"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyturn_http_request_seconds", Help: "Time from the request's header to the end of the answer, durable audit included.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5}}, []string{"method", "route"}),
		rows: map[*Route]*rowMetrics{},
	}
	m.registry.MustRegister(m.requests, m.seconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.rows[nil] = m.row("none", unrouted)
	return m
}

// Registry is where other rooms' collectors are added, by the server.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

func (m *Metrics) prepare(r *Route) { m.rows[r] = m.row(r.Method, r.Pattern) }

func (m *Metrics) row(method, pattern string) *rowMetrics {
	row := &rowMetrics{seconds: m.seconds.WithLabelValues(method, pattern)}
	for class := 1; class < len(row.byClass); class++ {
		row.byClass[class] = m.requests.WithLabelValues(method, pattern, strconv.Itoa(class)+"xx")
	}
	return row
}

// observe counts one answer. A status of 0 is an answer that never began: the caller went away.
func (m *Metrics) observe(r *Route, status int, took time.Duration) {
	row := m.rows[r]
	class := status / 100
	if class < 1 || class >= len(row.byClass) {
		class = 4
	}
	row.byClass[class].Inc()
	row.seconds.Observe(took.Seconds())
}

// serve answers GET /metrics.
func (m *Metrics) serve() func(*exchange) error {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{DisableCompression: true})
	return func(x *exchange) error {
		x.w.Header()["Cache-Control"] = noStore
		x.w.Header()["X-Content-Type-Options"] = noSniff
		x.status = http.StatusOK
		x.limitWriting()
		h.ServeHTTP(x.w, x.r)
		return nil
	}
}
