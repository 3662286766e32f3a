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

// A limit that was set for one answer doesn't outlive it: the connection serves the next request.
func TestWriteLimitsEndWithTheAnswer(t *testing.T) {
	r := newRig(t)
	w := &limitedWriter{ResponseRecorder: httptest.NewRecorder()}
	r.fake.lines = func(w io.Writer, flush func() error) error {
		_, _ = io.WriteString(w, "{}\n")
		return flush()
	}
	for _, path := range []string{"/v1/audit/tail", "/openapi.json"} {
		req := httptest.NewRequest("GET", path, nil)
		req.Header.Set("Authorization", goodToken)
		w.limits = nil
		r.ServeHTTP(w, req)
		if n := len(w.limits); n < 2 || w.limits[0].IsZero() || !w.limits[n-1].IsZero() {
			t.Errorf("%s: %v", path, w.limits)
		}
	}
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
