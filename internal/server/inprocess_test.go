package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// inProcessOver runs a handler behind the round tripper, without a store.
func inProcessOver(h http.HandlerFunc, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	a := newAnswer(cancel)
	go func() {
		a.serve(h, req.WithContext(ctx))
		cancel()
	}()
	<-a.begun
	return a.response(req), nil
}

func request(t *testing.T) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://keyturn/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestInProcessAnswer(t *testing.T) {
	res, err := inProcessOver(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "1")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-B", "too late")
		_, _ = io.WriteString(w, "short and stout")
	}, request(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if res.Status != "418 I'm a teapot" || res.ContentLength != 15 || string(b) != "short and stout" || err != nil || res.Header.Get("X-A") != "1" || res.Header.Get("X-B") != "" {
		t.Errorf("%+v %q %v", res, b, err)
	}
	res, err = inProcessOver(func(http.ResponseWriter, *http.Request) {}, request(t))
	if err != nil || res.StatusCode != 200 || res.ContentLength != 0 {
		t.Errorf("a handler that writes nothing: %+v %v", res, err)
	}
}

// What is flushed can be read while the handler goes on; a handler that aborts cuts the answer short.
func TestInProcessStream(t *testing.T) {
	read := make(chan struct{})
	res, err := inProcessOver(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		<-read
		_, _ = io.WriteString(w, "two\n")
		panic(http.ErrAbortHandler)
	}, request(t))
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "one\n" {
		t.Fatalf("%q %v", first, err)
	}
	close(read)
	rest, err := io.ReadAll(res.Body)
	if string(rest) != "two\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q %v", rest, err)
	}
	res, err = inProcessOver(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		panic(http.ErrAbortHandler)
	}, request(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); string(b) != "part" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("aborted before any flush: %q %v", b, err)
	}
}

// Closing the answer's body ends the handler, and its writes fail from then on.
func TestInProcessReaderGoesAway(t *testing.T) {
	ended := make(chan error, 1)
	res, err := inProcessOver(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		_, err := io.WriteString(w, "to nobody")
		ended <- err
	}, request(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler wrote to nobody")
	}
}

type closing struct {
	io.Reader
	closed chan struct{}
}

func (c closing) Close() error { close(c.closed); return nil }

// The contract of http.RoundTripper: the request's body is closed, its length may be unknown, and a caller who goes away
// gets his context's error while the request is still answered in full or not at all.
func TestInProcessContract(t *testing.T) {
	s := opened(t, made(t), Options{})
	c := inside(s)
	c.key(t, "phi")
	body := closing{strings.NewReader(`{"plaintext":"aGk="}`), make(chan struct{})}
	req := request(t)
	req.Method, req.URL.Path, req.Body = "POST", "/v1/keys/phi/encrypt", body
	res, err := c.rt.RoundTrip(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	<-body.closed
	b, err := io.ReadAll(res.Body)
	if err != nil || !bytes.HasPrefix(b, []byte(`{"ciphertext":"kt1.`)) {
		t.Errorf("%q %v", b, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.rt.RoundTrip(request(t).WithContext(gone)); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// Nothing that comes over a network can say that it was in process.
	if _, known, err := (embedded{}).Authenticate(t.Context(), request(t)); known || err != nil {
		t.Errorf("%v %v", known, err)
	}
}
