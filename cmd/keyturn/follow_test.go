package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// watched is a store whose one job says these lines when it is watched, and then what next does.
type watched struct {
	lines string
	next  func(ctx context.Context) error // nil: the stream ends
}

func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	body, pipe := io.Pipe()
	go func() {
		_, _ = io.WriteString(pipe, w.lines)
		err := error(nil)
		if w.next != nil {
			err = w.next(r.Context())
		}
		_ = pipe.CloseWithError(err)
	}()
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/x-ndjson"}}, Body: body}, nil
}

const (
	runningLine = `{"id":"j1","kind":"dataset-encrypt","state":"running","done":50,"total":100}` + "\n"
	doneLine    = `{"id":"j1","kind":"dataset-encrypt","state":"done","done":100,"total":100,"run":{"job":"j1","state":"done","rows":100,"changed":98,"skipped":1,"conflicts":1,"failed":0,"seconds":2,"rowsPerSecond":50}}` + "\n"
)

func TestFollowingAJobToItsEnd(t *testing.T) {
	for _, asJSON := range []bool{true, false} {
		var out, errs bytes.Buffer
		a := newApp(nil, &out, &errs)
		a.json = asJSON
		s := &store{Client: keyturn.NewClient(watched{lines: runningLine + doneLine})}
		if err := a.follow(t.Context(), s, "j1", "dataset encrypt patients"); err != nil {
			t.Fatal(err)
		}
		if asJSON && out.String() != `{"job":"j1","state":"done","rows":100,"changed":98,"skipped":1,"conflicts":1,"failed":0,"seconds":2,"rowsPerSecond":50,"opened":0,"plaintext":0,"null":0,"notSampled":0}`+"\n" {
			t.Errorf("printed %s", out.String())
		}
		if !asJSON && (!strings.Contains(out.String(), "changed    98\n") || !strings.Contains(out.String(), "2.0 (50 rows/s)")) {
			t.Errorf("printed %s", out.String())
		}
		if !strings.HasPrefix(errs.String(), "dataset encrypt patients  50 of 100 rows (50 %), running\n") {
			t.Errorf("told %q", errs.String())
		}
	}
}

// TestCtrlCSaysHowToGoOn: an embedded job keeps its place for the same command; a server goes on by itself.
func TestCtrlCSaysHowToGoOn(t *testing.T) {
	for _, tc := range []struct {
		embedded   bool
		what, want string
	}{
		{true, "dataset encrypt patients", "go on with: keyturn dataset encrypt patients"},
		{true, "job retry j1", "go on with: keyturn job watch j1"},
		{false, "dataset encrypt patients", "keyturn job watch j1, stop it: keyturn job pause j1"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &store{embedded: tc.embedded, Client: keyturn.NewClient(watched{lines: runningLine, next: func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}})}
		var out, errs bytes.Buffer
		err := newApp(nil, &out, &errs).follow(ctx, s, "j1", tc.what)
		_, _, next := keyturn.Explain(err)
		if keyturn.CodeOf(err) != api.CodeCancelled || !strings.Contains(next, tc.want) || out.Len() != 0 {
			t.Errorf("embedded %v: %v, next %q, printed %q", tc.embedded, err, next, out.String())
		}
	}
}

// TestAWatchThatBreaksIsAFailure: a part is never taken for the whole.
func TestAWatchThatBreaksIsAFailure(t *testing.T) {
	s := &store{Client: keyturn.NewClient(watched{lines: runningLine, next: func(context.Context) error { return io.ErrUnexpectedEOF }})}
	var out bytes.Buffer
	err := newApp(nil, &out, io.Discard).follow(t.Context(), s, "j1", "dataset encrypt patients")
	if keyturn.CodeOf(err) != api.CodeUnavailable || out.Len() != 0 {
		t.Errorf("got %v, printed %q", err, out.String())
	}
	s = &store{Client: keyturn.NewClient(watched{lines: runningLine})}
	if err := newApp(nil, &out, io.Discard).follow(t.Context(), s, "j1", "dataset encrypt patients"); err == nil {
		t.Errorf("a watch that ends while the job runs ended well: %q", out.String())
	}
}
