package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// endless is a body of n zeroes that are made as they are read.
type endless struct{ n, read int }

func (e *endless) Read(b []byte) (int, error) {
	if e.read >= e.n {
		return 0, io.EOF
	}
	b = b[:min(len(b), e.n-e.read)]
	for i := range b {
		b[i] = ' '
	}
	e.read += len(b)
	return len(b), nil
}

func TestBodyLimits(t *testing.T) {
	r := newRig(t)
	fits := `{"plaintext":"aGk="}`
	for name, c := range map[string]struct {
		size      int  // blanks around the document
		announced bool // Content-Length, or chunked
		status    int
	}{
		"small": {0, true, 200}, "small, chunked": {0, false, 200}, "beyond a small buffer": {smallBody, true, 200},
		"just fits": {api.MaxBody - len(fits), true, 200}, "just fits, chunked": {api.MaxBody - len(fits), false, 200},
		"one too many": {api.MaxBody - len(fits) + 1, true, 413}, "one too many, chunked": {api.MaxBody - len(fits) + 1, false, 413},
		"a hundred megabytes": {100 << 20, true, 413}, "a hundred megabytes, chunked": {100 << 20, false, 413},
	} {
		blanks := &endless{n: c.size}
		req := httptest.NewRequest("POST", encryptPath, io.MultiReader(strings.NewReader(fits), blanks))
		req.Header.Set("Authorization", goodToken)
		req.ContentLength = -1
		if c.announced {
			req.ContentLength = int64(c.size + len(fits))
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if blanks.read > api.MaxBody+1 {
			t.Errorf("%s: %d bytes were read", name, blanks.read)
		}
		if w.Code == 413 && (w.Header().Get("Connection") != "close" || problemOf(t, w).Code != api.CodeTooLarge) {
			t.Errorf("%s: %v", name, w.Header())
		}
	}
	if n := len(r.places); n != 0 {
		t.Errorf("%d places were not given back", n)
	}
}

func TestBodyThatEndsEarly(t *testing.T) {
	r := newRig(t)
	for _, announced := range []int64{100, -1} {
		req := httptest.NewRequest("POST", encryptPath, io.MultiReader(strings.NewReader(`{"plaintext":`), failing{}))
		req.Header.Set("Authorization", goodToken)
		req.ContentLength = announced
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code < 400 || r.fake.count() != 0 {
			t.Errorf("announced %d: %d, %d calls", announced, w.Code, r.fake.count())
		}
	}
	req := httptest.NewRequest("POST", encryptPath, strings.NewReader("\x1f\x8b"))
	req.Header.Set("Authorization", goodToken)
	req.Header.Set("Content-Encoding", "gzip")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if p := problemOf(t, w); p.Code != api.CodeInvalid || p.Field != "Content-Encoding" {
		t.Errorf("a compressed body: %+v", p)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Row 25: a thousand bodies of 100 MB that don't say how long they are cost less than 64 MB together.
func TestAdvisory_CVE_2023_5954(t *testing.T) {
	r := newRig(t)
	srv := httptest.NewServer(r)
	defer srv.Close()
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 100)
	for range 1000 {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			req, err := http.NewRequest("POST", srv.URL+encryptPath, &endless{n: 100 << 20})
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", goodToken)
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				return // the connection was cut while we were still sending: refused all the same
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&peak)
	if grown := int64(peak.Sys) - int64(before.Sys); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if w := r.call("POST", encryptPath, `{"plaintext":"aGk="}`, goodToken); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

// Large bodies wait for a place, and somebody who gives up waiting takes none.
func TestLargeBodiesWaitForAPlace(t *testing.T) {
	r := newRig(t)
	for range largePlaces {
		r.places <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "POST", encryptPath, &endless{n: smallBody * 2})
	req.Header.Set("Authorization", goodToken)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if p := problemOf(t, w); p.Code != api.CodeCancelled {
		t.Errorf("%+v", p)
	}
	if w := r.call("POST", encryptPath, `{"plaintext":"aGk="}`, goodToken); w.Code != 200 {
		t.Errorf("a small body had to wait: %d", w.Code)
	}
	if len(r.places) != largePlaces {
		t.Errorf("%d places taken", len(r.places))
	}
}

// Row 37, over the table: each member of each request, given as every wrong type with a canary in it, is refused by its
// name, and the canary doesn't come back.
func TestAdvisory_CVE_2025_52893(t *testing.T) {
	const canary = "CANARY5a1b"
	r := newRig(t)
	for _, row := range r.Routes() {
		if row.In() == nil {
			continue
		}
		for member := range row.In().Fields() {
			name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
			for _, wrong := range wrongFor(member.Type, canary) {
				w := r.call(row.Method, target(row), `{"`+name+`":`+wrong+`}`, goodToken)
				if w.Code != 400 || strings.Contains(w.Body.String(), canary) {
					t.Errorf("%s %s with %s: %d %s", row.Method, row.Pattern, wrong, w.Code, w.Body)
					continue
				}
				if p := problemOf(t, w); !strings.HasPrefix(p.Field, name) {
					t.Errorf("%s %s: the field is %q, want %q", row.Method, row.Pattern, p.Field, name)
				}
			}
		}
	}
	for _, ev := range r.log.all() {
		if strings.Contains(reflect.ValueOf(ev).String(), canary) {
			t.Errorf("recorded %+v", ev)
		}
	}
}

// wrongFor gives values that don't fit a type.
func wrongFor(t reflect.Type, canary string) []string {
	text, list, object := `"`+canary+`"`, `["`+canary+`"]`, `{"`+canary+`":1}`
	switch {
	case t.Kind() == reflect.String:
		return []string{list, object}
	case t.Kind() == reflect.Map:
		return []string{text, list, object}
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		return []string{text, object}
	}
	return []string{text, list, object}
}
