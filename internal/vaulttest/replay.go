package vaulttest

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// Recording answers requests with what was recorded from a server: for each method and path the first answer, until Next. It is
// an http.RoundTripper for vault.Config. What was never asked for is answered with status 404.
type Recording struct {
	mu      sync.Mutex // guards answers
	answers map[string][]recorded
}

// recorded is one line of a recording: a request and its answer.
type recorded struct {
	Method, Path string
	Status       int
	Answer       string
}

// Replay reads a recording: a line about its origin, then one JSON object a line.
func Replay(tb testing.TB, name string) *Recording {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r := &Recording{answers: map[string][]recorded{}}
	lines := bufio.NewScanner(f)
	lines.Scan() // the origin
	for lines.Scan() {
		var line recorded
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		key := line.Method + " " + line.Path
		r.answers[key] = append(r.answers[key], line)
	}
	if lines.Err() != nil || len(r.answers) == 0 {
		tb.Fatalf("%s: %d requests, %v", name, len(r.answers), lines.Err())
	}
	return r
}

// Next goes on to the next recorded answer to a request.
func (r *Recording) Next(tb testing.TB, method, path string) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	key := method + " " + path
	if len(r.answers[key]) < 2 {
		tb.Fatalf("no further answer to %s was recorded", key)
	}
	r.answers[key] = r.answers[key][1:]
}

// RoundTrip answers.
func (r *Recording) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := recorded{Status: http.StatusNotFound, Answer: `{"errors":[]}`}
	if all := r.answers[req.Method+" "+req.URL.Path]; len(all) > 0 {
		found = all[0]
	}
	return &http.Response{StatusCode: found.Status, Header: http.Header{}, Request: req, Body: io.NopCloser(strings.NewReader(found.Answer))}, nil
}
