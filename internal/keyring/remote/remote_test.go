package remote_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

func get(t *testing.T, c *http.Client, address string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(r)
}

// An answer is read to its end, unless that lies too far away.
func TestAnswersAreLimited(t *testing.T) {
	size := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("a", size)) }))
	defer s.Close()
	for _, c := range []struct {
		size int
		ok   bool
	}{{0, true}, {1, true}, {remote.MaxAnswer - 1, true}, {remote.MaxAnswer + 1, false}, {4 * remote.MaxAnswer, false}} {
		size = c.size
		answer, err := get(t, remote.Client(time.Minute), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if (err == nil) != c.ok || len(text) > remote.MaxAnswer || c.ok && len(text) != c.size {
			t.Errorf("of %d bytes %d were read: %v", c.size, len(text), err)
		}
	}
}

// Nothing is sent in clear to another machine, whatever address somebody configured.
func TestNoTLSStaysOnThisMachine(t *testing.T) {
	for address, refused := range map[string]bool{
		"http://192.0.2.1:8200/": true, "http://kms.example.org/": true, "http://169.254.169.254/": true, "http://127.0.0.1.example.org/": true,
		"http://[::1]:1/": false, "http://127.0.0.1:1/": false, "http://localhost:1/": false, "https://192.0.2.1:1/": false,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		asked := false
		guarded := remote.Guard(roundTrip(func(*http.Request) (*http.Response, error) {
			asked = true
			return &http.Response{Body: http.NoBody}, nil
		}))
		_, err = guarded.RoundTrip((&http.Request{URL: u, Header: http.Header{}}).WithContext(t.Context()))
		if asked == refused || refused && fault.CodeOf(remote.Fault(t.Context(), err, "asking")) != api.CodeInvalid {
			t.Errorf("%s: sent %v, %v", address, asked, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRedirectsStay(t *testing.T) {
	s := httptest.NewServer(http.RedirectHandler("https://192.0.2.1/", http.StatusTemporaryRedirect))
	defer s.Close()
	answer, err := get(t, remote.Client(time.Minute), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("status %d", answer.StatusCode)
	}
}

func TestFault(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	foreign := &url.Error{Op: "Post", URL: "https://canary", Err: io.ErrUnexpectedEOF}
	for _, c := range []struct {
		ctx  context.Context
		want api.Code
		text string
	}{{t.Context(), api.CodeUnavailable, "asking"}, {gone, api.CodeCancelled, "asking: context canceled"}, {late, api.CodeUnavailable, "asking: context deadline exceeded"}} {
		if err := remote.Fault(c.ctx, foreign, "asking"); err.Code != c.want || err.Error() != c.text {
			t.Errorf("%q (code %q), want %q (code %q)", err, err.Code, c.text, c.want)
		}
	}
}
