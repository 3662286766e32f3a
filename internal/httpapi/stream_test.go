package httpapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func (r *rig) stream(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", goodToken)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestStreamArrivesAsItIsFlushed(t *testing.T) {
	r := newRig(t)
	srv := httptest.NewServer(r)
	defer srv.Close()
	seen, done := make(chan struct{}), make(chan struct{})
	r.fake.lines = func(w io.Writer, flush func() error) error {
		_, _ = io.WriteString(w, `{"index":1}`+"\n")
		if err := flush(); err != nil {
			return err
		}
		<-seen // the reader has it while we still run
		_, err := io.WriteString(w, `{"index":2}`+"\n")
		close(done)
		return err
	}
	res := r.stream(t, srv.URL+"/v1/audit/tail?follow=true")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/x-ndjson" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); line != `{"index":1}`+"\n" || err != nil {
		t.Fatalf("%q %v", line, err)
	}
	close(seen)
	<-done
	if rest, err := io.ReadAll(lines); string(rest) != `{"index":2}`+"\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// Row 82: a stream that fails half way says so and is cut; nobody can take a part for the whole.
func TestStreamThatFails(t *testing.T) {
	r := newRig(t)
	srv := httptest.NewServer(r)
	defer srv.Close()
	r.fake.lines = func(io.Writer, func() error) error { return fault.New(api.CodeDenied, "not yours") }
	res := r.stream(t, srv.URL+"/v1/audit/tail")
	if res.StatusCode != 403 || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("before the first line: %d %v", res.StatusCode, res.Header)
	}
	r.fake.lines = func(w io.Writer, _ func() error) error {
		_, _ = io.WriteString(w, `{"index":1}`+"\n")
		return errors.New("the disk says CANARY")
	}
	b, err := io.ReadAll(r.stream(t, srv.URL+"/v1/audit/tail").Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the connection ended in good order: %v", err)
	}
	_, last, _ := strings.Cut(string(b), "\n")
	var p api.Problem
	if json.Unmarshal([]byte(last), &p) != nil || p.Code != api.CodeInternal || strings.Contains(last, "CANARY") {
		t.Errorf("the last line is %q", last)
	}
}

func TestDrainEndsStreams(t *testing.T) {
	r := newRig(t)
	r.fake.entered = make(chan struct{})
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		req := httptest.NewRequest("GET", "/v1/audit/events", nil)
		req.Header.Set("Authorization", goodToken)
		r.ServeHTTP(w, req)
	}()
	<-r.fake.entered
	r.Drain()
	<-done
	if p := problemOf(t, w); p.Code != api.CodeUnavailable {
		t.Errorf("a stream that had sent nothing: %+v", p)
	}
}

// Every answer, however small, has a limit for writing, and it stays when the handler has returned: net/http flushes after
// that. The connection's next request begins with a limit of its own, so that no old one can run out under it.
func TestWriteLimits(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.clock = func() time.Time { now = now.Add(time.Hour); return now }
	w := &limitedWriter{ResponseRecorder: httptest.NewRecorder()}
	r.fake.lines = func(w io.Writer, flush func() error) error {
		_, _ = io.WriteString(w, "{}\n")
		return flush()
	}
	for _, path := range []string{"/healthz", "/v1/audit/tail", "/openapi.json", "/metrics", "/nowhere"} {
		req := httptest.NewRequest("GET", path, nil)
		req.Header.Set("Authorization", goodToken)
		w.limits = nil
		before := now
		r.ServeHTTP(w, req)
		if n := len(w.limits); n < 2 || w.limits[0].Sub(before) < patience {
			t.Errorf("%s: %v", path, w.limits)
		}
		for i, limit := range w.limits {
			if limit.IsZero() || i > 0 && limit.Before(w.limits[i-1]) {
				t.Errorf("%s: %v", path, w.limits)
			}
		}
	}
}

// Pipelined requests whose answers nobody reads don't hold a connection for ever, be the answers small or large. The
// clock is long past, so that every limit has run out when it is set.
func TestUnreadAnswersEndTheConnection(t *testing.T) {
	r := newRig(t)
	r.clock = func() time.Time { return time.Unix(1e9, 0) }
	srv := httptest.NewServer(r)
	defer srv.Close()
	for _, path := range []string{"/healthz", "/openapi.json"} {
		if res, err := http.Get(srv.URL + path); err == nil {
			res.Body.Close()
			t.Errorf("%s was answered without a limit", path)
		}
	}
}

// Whoever doesn't read his answer holds no place for a large body.
func TestPlaceIsGivenBackBeforeTheAnswer(t *testing.T) {
	r := newRig(t)
	body := `{"items":[` + strings.Repeat(`{"plaintext":"aGk="},`, 900) + `{"plaintext":"aGk="}]}`
	if len(body) <= smallBody {
		t.Fatal("the body is too small for the test")
	}
	req := httptest.NewRequest("POST", "/v1/keys/phi/encrypt/batch", strings.NewReader(body))
	req.Header.Set("Authorization", goodToken)
	w := &placesWriter{ResponseRecorder: httptest.NewRecorder(), api: r.API, held: -1}
	r.ServeHTTP(w, req)
	if w.held != 0 || len(r.places) != 0 {
		t.Errorf("%d places held while answering (%d), %d after it", w.held, w.Code, len(r.places))
	}
}

// placesWriter notes the places that are held when the answer begins.
type placesWriter struct {
	*httptest.ResponseRecorder
	api  *API
	held int
}

func (w *placesWriter) WriteHeader(status int) {
	w.held = len(w.api.places)
	w.ResponseRecorder.WriteHeader(status)
}

// limitedWriter notes the limits for writing.
type limitedWriter struct {
	*httptest.ResponseRecorder
	limits []time.Time
}

func (w *limitedWriter) SetWriteDeadline(t time.Time) error {
	w.limits = append(w.limits, t)
	return nil
}
