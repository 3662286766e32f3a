package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/fault"
)

// Config is what an API is made of. Every field is required but Log and Clock.
type Config struct {
	Services Services
	Authn    []authn.Method // asked in this order; the first that knows the caller wins
	Record   Recorder       // keeps what no service can: refused sign-ins and panics
	Metrics  *Metrics
	Ready    func() error // nil while requests can be served; what GET /readyz asks
	Log      *slog.Logger // default: discards
	Clock    func() time.Time
}

// API is the handler of every listener. It is safe for concurrent use.
type API struct {
	services Services
	authn    []authn.Method
	failures *failures
	metrics  *Metrics
	ready    func() error
	log      *slog.Logger
	clock    func() time.Time

	routes   []*Route
	router   *router
	public   map[string]*Route      // by path; GET and HEAD
	openapi  func() ([]byte, error) // made at the first call: most processes are never asked for it
	ids      requestIDs
	places   chan struct{}   // one for each large body being held
	pool     sync.Pool       // *exchange
	draining context.Context // ends at Drain
	drain    context.CancelFunc

	decodes atomic.Int64 // bodies given to a decoder, ever: the tests of the pipeline's order count them
}

// New builds the table and the router.
func New(cfg Config) (*API, error) {
	a := &API{services: cfg.Services, authn: cfg.Authn, metrics: cfg.Metrics, ready: cfg.Ready, log: cfg.Log,
		clock: cfg.Clock, public: map[string]*Route{}, places: make(chan struct{}, largePlaces)}
	a.draining, a.drain = context.WithCancel(context.Background())
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.clock == nil {
		a.clock = time.Now
	}
	a.failures = newFailures(cfg.Record, a.clock)
	a.ids.seed()
	a.routes = a.table()
	a.router = newRouter(a.routes)
	for _, r := range a.routes {
		a.metrics.prepare(r)
		if r.Public {
			a.public[r.Pattern] = r
		}
	}
	a.openapi = sync.OnceValues(func() ([]byte, error) { return document(a.routes) })
	a.pool.New = func() any { return &exchange{api: a, caller: nobody} }
	return a, nil
}

// Routes is the table: for the matrix tests, and for documentation. It is not to be changed.
func (a *API) Routes() []*Route { return a.routes }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := a.pool.Get().(*exchange)
	x.w, x.r = w, r
	if r.ProtoMajor == 1 {
		x.limitWriting() // for "100 Continue"; on HTTP/2 a limit would end requests that take long, and its answers have none before them
	}
	started := a.clock()
	defer func() { a.finish(x, started, recover()) }()
	if err := a.serve(x); err != nil {
		x.fail(a.failures.refused(x, err))
	}
}

// serve takes a request through the pipeline.
func (a *API) serve(x *exchange) error {
	if route := a.public[x.r.URL.Path]; route != nil && (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead) {
		x.route = route
		return route.serve(x)
	}
	if err := a.authenticate(x); err != nil {
		return err
	}
	if err := checkPath(x.r.URL); err != nil {
		return err
	}
	rows, name := a.router.find(x.r.URL.Path)
	if rows == nil {
		return fault.New(api.CodeNotFound, "there is no such path").WithField("path").WithNext("see /openapi.json")
	}
	for _, row := range rows {
		if row.Method == x.r.Method {
			x.route = row
		}
	}
	if x.route == nil {
		x.methodNotAllowed(methods(rows))
		return nil
	}
	query, err := parseQuery(x.r.URL.RawQuery, x.route.Query)
	if err != nil {
		return err
	}
	x.params = Params{Name: name, query: query}
	if needs := x.route.Needs; needs != "" && query.Get(needs) == "" {
		return badField(needs, "the parameter is missing").WithNext("say ?" + needs + "=…; /openapi.json says what it takes")
	}
	return x.route.serve(x)
}

// authenticate finds out who asks, before anything that he sent is looked at. Every refusal is the same.
func (a *API) authenticate(x *exchange) error {
	x.caller = &access.Caller{SourceIP: sourceIP(x.r.RemoteAddr), RequestID: a.ids.next()}
	ctx := x.r.Context()
	if x.r.URL.Path == verifyPath { // must answer when nothing else can
		ctx = authn.Diagnosing(ctx)
	}
	for _, m := range a.authn {
		p, known, err := m.Authenticate(ctx, x.r)
		if fault.CodeOf(err) == api.CodeIntegrity { // a forged row: refused, recorded, and said
			if failed := a.failures.record(x.r.Context(), x.caller, api.CodeIntegrity); failed != nil {
				return failed
			}
			return err
		}
		if err != nil && fault.CodeOf(err) != api.CodeUnauthenticated {
			return err
		}
		if err != nil {
			break // a credential was there and isn't accepted: no other method may make good for it
		}
		if known {
			x.caller.Principal, x.caller.Method = p, m.Name()
			return nil
		}
	}
	if err := a.failures.record(x.r.Context(), x.caller, api.CodeUnauthenticated); err != nil {
		return err
	}
	return authn.ErrUnauthenticated
}

// finish ends an exchange: it turns a panic into an answer, counts, and puts the exchange away.
func (a *API) finish(x *exchange, started time.Time, panicked any) {
	if panicked != nil {
		a.panicked(x, panicked)
	}
	a.metrics.observe(x.route, x.status, a.clock().Sub(started))
	x.leavePlace()
	x.reset()
	a.pool.Put(x)
	if err, ok := panicked.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // net/http's way to cut the connection
	}
}

// panicked answers and records a panic. The panic's own text may quote a value, so only its type and the functions on
// the stack are kept.
func (a *API) panicked(x *exchange, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return
	}
	a.log.Error("a request handler panicked", "request", x.caller.RequestID, "type", fmt.Sprintf("%T", p), "stack", stack())
	a.failures.panicked(x)
	if x.status == 0 {
		x.fail(errPanic)
	}
}

// stack names the functions of the panicking goroutine, without their arguments.
func stack() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s:%d ", f.Function, f.Line)
		if !more {
			return b.String()
		}
	}
}

// sourceIP is the peer's address without its port; "" for the unix socket and in process. What a proxy claims in a
// header is not believed.
func sourceIP(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i > 0 {
		return strings.Trim(remote[:i], "[]")
	}
	return ""
}
