package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// made makes a store in a temporary directory whose path is short enough for a socket.
func made(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir = filepath.Join(dir, "d")
	if _, err := Init(t.Context(), dir, InitOptions{Embedded: true, Environ: []string{}}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// opened opens a store; it is closed at the end of the test.
func opened(t testing.TB, dir string, opts Options) *Server {
	t.Helper()
	opts.Embedded = true
	if opts.Environ == nil {
		opts.Environ = []string{}
	}
	s, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

// caller asks one server in one way.
type caller struct {
	base  string
	rt    http.RoundTripper
	token string
}

// call sends a request and reads the answer. A body that isn't a string is sent as JSON.
func (c caller) call(t testing.TB, method, path string, body any) (status int, answer []byte) {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, r)
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.rt.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, answer
}

// must calls and reads the answer into out, which may be nil.
func (c caller) must(t testing.TB, method, path string, body, out any) {
	t.Helper()
	status, answer := c.call(t, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// inside calls in process, as the administrator.
func inside(s *Server) caller { return caller{base: "http://keyturn", rt: s.InProcess()} }

// principal makes a principal and gives its token.
func (c caller) principal(t testing.TB, name, role string, scope ...string) string {
	t.Helper()
	if len(scope) == 0 {
		scope = []string{"*"}
	}
	var p api.Principal
	c.must(t, "POST", "/v1/principals", api.CreatePrincipalRequest{Name: name, Role: role, Scope: scope}, &p)
	return p.Token
}

// key makes a key.
func (c caller) key(t testing.TB, name string) {
	t.Helper()
	c.must(t, "POST", "/v1/keys", api.CreateKeyRequest{Name: name}, nil)
}

// serving is a server that runs.
type serving struct {
	*Server
	stop func() error // ends Serve and gives its error; may be called again
}

// served serves a store on every kind of address and returns when it is ready.
func served(t testing.TB, dir string, opts Options) *serving {
	t.Helper()
	if opts.Set == nil {
		opts.Set = map[string]any{}
	}
	if opts.Set["listen"] == nil {
		opts.Set["listen"] = []string{"https://127.0.0.1:0", "http://127.0.0.1:0"}
	}
	s := opened(t, dir, opts)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	v := &serving{Server: s, stop: sync.OnceValue(func() error { cancel(); return <-ended })}
	t.Cleanup(func() {
		if err := v.stop(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	select {
	case <-s.ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("serving: %v", err)
	}
	return v
}

// address is the first one of a scheme that is listened at.
func (v *serving) address(t testing.TB, scheme string) string {
	t.Helper()
	for _, a := range v.Listening() {
		if strings.HasPrefix(a, scheme+"://") {
			return a
		}
	}
	t.Fatalf("nothing listens by %s", scheme)
	return ""
}

// over is a caller by one of the kinds of addresses.
func (v *serving) over(t testing.TB, scheme, token string) caller {
	t.Helper()
	address := v.address(t, scheme)
	switch scheme {
	case "https":
		return caller{base: address, rt: transportTo(t, &http.Transport{TLSClientConfig: trusting(t, v.Dir()), ForceAttemptHTTP2: true}), token: token}
	case "unix":
		path := strings.TrimPrefix(address, "unix://")
		return caller{base: "http://keyturn", rt: transportTo(t, &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}), token: token}
	}
	return caller{base: address, rt: transportTo(t, &http.Transport{}), token: token}
}

func transportTo(t testing.TB, tr *http.Transport) *http.Transport {
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// trusting trusts the private authority of a data directory.
func trusting(t testing.TB, dir string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, TLSDir, CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("ca.crt holds no certificate")
	}
	return &tls.Config{RootCAs: pool}
}

// syncBuffer is a log's writer.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// serveUntilStdinEnds is the other process of tests that need one: it serves a store as the command line does, in this
// process's own environment, and ends in good order when its standard input does.
func serveUntilStdinEnds(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "failed:", err)
			os.Exit(1)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Open(ctx, dir, Options{Command: "keyturn serve", LogTo: os.Stderr})
	fail(err)
	go func() {
		<-s.ready
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fail(s.Serve(ctx))
	fail(s.Close(context.Background()))
	os.Exit(0)
}
