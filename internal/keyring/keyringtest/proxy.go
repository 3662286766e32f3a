package keyringtest

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
)

// proxy stands on loopback in front of a provider's service, and does to its calls what a network does, or worse.
type proxy struct {
	*httptest.Server
	to *url.URL

	mu      sync.Mutex // guards what follows
	fault   func(*call)
	calls   int      // since the fault was set
	answers []answer // likewise: what the service answered
	headers map[string]bool
	queries []string

	gone chan struct{} // closed when the proxy ends: lets go of calls that are never answered
}

// call is one request on its way through the proxy. A fault answers it, or lets the service do it.
type call struct {
	number int // from 1, since the fault was set
	w      http.ResponseWriter
	r      *http.Request
	gone   <-chan struct{}
	answer func() answer
}

// answer is one of the service.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, headers: map[string]bool{}, gone: make(chan struct{})}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of TLS handshakes that fail
	t.Cleanup(func() {
		close(p.gone)
		p.Close()
	})
	return p
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	p := newProxy(t, server)
	p.Start()
	return p
}

// set has every call from now on go through fault; nil lets all through.
func (p *proxy) set(fault func(*call)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.calls, p.answers = fault, 0, nil
}

func (p *proxy) seen() (calls int, answers []answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls, p.answers
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // all of it, or nobody would notice that the client went away
	if err != nil {
		return
	}
	p.mu.Lock()
	p.calls++
	for name := range r.Header {
		p.headers[name] = true
	}
	p.queries = append(p.queries, r.URL.String())
	c := &call{number: p.calls, w: w, r: r, gone: p.gone, answer: func() answer { return p.ask(r, body) }}
	fault := p.fault
	p.mu.Unlock()
	if fault == nil {
		fault = pass
	}
	fault(c)
}

// pass is the fault that is none.
func pass(c *call) { c.answer().write(c.w) }

// ask has the service answer.
func (p *proxy) ask(r *http.Request, body []byte) answer {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", p.to.Scheme, p.to.Host
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	got, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	got.Header.Del("Content-Length")
	a := answer{status: got.StatusCode, header: got.Header, body: text}
	p.mu.Lock()
	p.answers = append(p.answers, a)
	p.mu.Unlock()
	return a
}
