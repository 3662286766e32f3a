package keyturn

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestDialAddresses(t *testing.T) {
	cases := []struct {
		server string
		ok     bool
	}{
		{"https://keys.example.org:8420", true},
		{"https://keys.example.org/", true},
		{"http://127.0.0.1:1", true},
		{"http://[::1]:1", true},
		{"http://localhost:1", true},
		{"unix:///run/keyturn.sock", true},
		{"http://keys.example.org", false},
		{"http://10.0.0.1", false},
		{"http://localhost.example.org", false},
		{"http://127.0.0.1.example.org", false},
		{"https://user:pass@keys.example.org", false},
		{"https://keys.example.org/v1", false},
		{"https://keys.example.org?x=1", false},
		{"https://", false},
		{"unix://relative", false},
		{"unix:relative", false},
		{"ftp://keys.example.org", false},
		{"keys.example.org:8420", false},
		{"", false},
		{"%", false},
	}
	for _, tc := range cases {
		c, err := Dial(tc.server)
		if (err == nil) != tc.ok {
			t.Errorf("%q: %v", tc.server, err)
			continue
		}
		if err != nil {
			if CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "server" {
				t.Errorf("%q: code %q, field %q", tc.server, CodeOf(err), fault.FieldOf(err))
			}
			if strings.Contains(err.Error(), "pass") {
				t.Errorf("%q: the error repeats the password", tc.server)
			}
			continue
		}
		c.Close()
	}
}

// TestAdvisory_CVE_2024_45336: the client never follows a redirect, so that neither token nor body reach another host.
func TestAdvisory_CVE_2024_45336(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Errorf("%d: a redirect was followed", status)
		}))
		first := httptest.NewServer(http.RedirectHandler(other.URL+"/v1/status", status))
		c, err := Dial(first.URL, WithToken("kt_secret"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(context.Background()); CodeOf(err) != api.CodeInvalid {
			t.Errorf("%d: got %v", status, err)
		}
		if _, err := c.CreateKey(context.Background(), api.CreateKeyRequest{Name: "phi"}); CodeOf(err) != api.CodeInvalid {
			t.Errorf("%d: got %v", status, err)
		}
		c.Close()
		first.Close()
		other.Close()
	}
}

func whoami(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"principal":"` + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + `"}`))
}

func TestDialTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(whoami))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(srv.URL, WithCAFile(ca), WithToken("kt_x"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if who, err := c.WhoAmI(context.Background()); err != nil || who.Principal != "kt_x" {
		t.Errorf("got %+v, %v", who, err)
	}
	stranger, err := Dial(srv.URL, WithRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	_, err = stranger.WhoAmI(context.Background())
	if message, _, next := Explain(err); CodeOf(err) != api.CodeUnavailable || !strings.Contains(message, "certificate") || !strings.Contains(next, "--ca") {
		t.Errorf("an unknown authority: %q, next %q", message, next)
	}
}

func TestDialUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(whoami)}}
	srv.Start()
	defer srv.Close()
	c, err := Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WhoAmI(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestConnectionsAreReused: one connection serves calls that follow one another.
func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(whoami))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c, err := Dial(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if _, err := c.WhoAmI(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("opened %d connections for 20 calls", n)
	}
}

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	cases := []struct {
		name, path string
		code       api.Code
	}{
		{"good", write("good", " kt_token\n", 0o600), ""},
		{"readable by others", write("open", "kt_token", 0o644), api.CodeWrongState},
		{"absent", filepath.Join(dir, "none"), api.CodeNotFound},
		{"two words", write("two", "kt_a kt_b", 0o600), api.CodeInvalid},
		{"a folder", dir, api.CodeWrongState},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Dial("http://127.0.0.1:1", WithTokenFile(tc.path))
			if CodeOf(err) != tc.code {
				t.Errorf("Dial: got %v, want code %q", err, tc.code)
			}
			_, err = NewClient(ok("{}"), WithTokenFile(tc.path)).Status(context.Background())
			if CodeOf(err) != tc.code {
				t.Errorf("NewClient: got %v, want code %q", err, tc.code)
			}
			if err != nil && strings.Contains(err.Error(), "kt_") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}
