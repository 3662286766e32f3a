package peer

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/fault"
)

// source knows one local administrator, or fails.
type source struct {
	authn.Source
	admin access.Principal
	err   error
}

func (s *source) LocalAdministrator(context.Context) (access.Principal, error) { return s.admin, s.err }

// serve answers over a real unix socket (or TCP) what the method says of the request's peer.
func serve(t *testing.T, network string, m *Method) func(header string) (name string, found bool, err error) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		p     *access.Principal
		found bool
		err   error
	}
	answers := make(chan answer, 1)
	srv := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, found, err := m.Authenticate(r.Context(), r)
		answers <- answer{p, found, err}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return func(header string) (string, bool, error) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://keyturn/", nil)
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		a := <-answers
		if a.p == nil {
			return "", a.found, a.err
		}
		return a.p.Name, a.found, a.err
	}
}

func method(s *source, owner int) *Method {
	return New(authn.NewLocal(s, &authn.Generation{}, time.Now), owner)
}

func TestPeerOfTheServersUser(t *testing.T) {
	s := &source{admin: access.Principal{ID: "1", Name: "first", Role: access.RoleOwner}}
	ask := serve(t, "unix", method(s, os.Getuid()))
	for range 2 { // the second request of the connection too
		if name, found, err := ask(""); name != "first" || !found || err != nil {
			t.Errorf("%q, %v, %v", name, found, err)
		}
	}
	if name, found, err := ask("Bearer kt_x"); name != "" || found || err != nil {
		t.Errorf("a request with a token was taken for the socket's peer: %q, %v, %v", name, found, err)
	}
}

func TestPeerOverTCPIsNobody(t *testing.T) {
	ask := serve(t, "tcp", method(&source{admin: access.Principal{Name: "first"}}, os.Getuid()))
	if name, found, err := ask(""); name != "" || found || err != nil {
		t.Errorf("%q, %v, %v", name, found, err)
	}
}

// Other users are nobody, root is the local administrator. The user ids are put into the context, since a test can't
// become somebody else.
func TestOtherUsersAreNobody(t *testing.T) {
	m := method(&source{admin: access.Principal{Name: "first"}}, 1000)
	for uid, want := range map[int]bool{1000: true, 0: true, 1001: false, -1: false, 65534: false} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), uidKey{}, uid))
		if p, found, err := m.Authenticate(r.Context(), r); found != want || (p != nil) != want || err != nil {
			t.Errorf("user %d: %v, %v, %v", uid, p, found, err)
		}
	}
}

// A header or a context key that somebody else sets doesn't pass for the kernel's word.
func TestPeerCantBeForged(t *testing.T) {
	m := method(&source{admin: access.Principal{Name: "first"}}, 0)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, h := range []string{"X-Remote-Uid", "X-Forwarded-For", "Uid"} {
		r.Header.Set(h, "0")
	}
	r = r.WithContext(context.WithValue(r.Context(), struct{ uidKey string }{}, 0))
	if _, found, _ := m.Authenticate(r.Context(), r); found {
		t.Error("a forged peer was accepted")
	}
}

func TestPeerWithoutAnAdministrator(t *testing.T) {
	for name, c := range map[string]struct {
		s    *source
		want error
	}{
		"none":     {&source{err: fault.New(api.CodeNotFound, "none")}, authn.ErrUnauthenticated},
		"disabled": {&source{admin: access.Principal{Name: "first", Disabled: true}}, authn.ErrUnauthenticated},
		"broken":   {&source{err: fault.New(api.CodeBusy, "locked")}, fault.New(api.CodeUnavailable, "checking a credential")},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), uidKey{}, 0))
		p, found, err := method(c.s, 0).Authenticate(r.Context(), r)
		if p != nil || !found || fault.CodeOf(err) != fault.CodeOf(c.want) {
			t.Errorf("%s: %v, %v, %v", name, p, found, err)
		}
	}
}
