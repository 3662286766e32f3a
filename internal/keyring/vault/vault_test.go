package vault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

const readSelf = `path "secret/none" { capabilities = ["read"] }`

func dial(t *testing.T, lookup func(string) (string, bool)) *vault.Client {
	t.Helper()
	c, err := vault.Dial(t.Context(), vault.Config{Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func self(t *testing.T, c *vault.Client) error {
	t.Helper()
	_, err := c.Read(t.Context(), "auth/token/lookup-self")
	return err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A revoked token is denied, and the error says what to do.
func TestRevokedToken(t *testing.T) {
	v := vaulttest.Start(t)
	token := v.Token(t, readSelf, "1h")
	c := dial(t, v.Env(token))
	if err := self(t, c); err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": token})
	err := self(t, c)
	if fault.CodeOf(err) != api.CodeDenied || !strings.Contains(fault.NextOf(err), "VAULT_TOKEN") || strings.Contains(err.Error(), token) {
		t.Errorf("after the revocation: %v, next %q", err, fault.NextOf(err))
	}
}

// An agent exchanges the token in the file: the refused call is made again with the new one.
func TestTokenFile(t *testing.T) {
	v := vaulttest.Start(t)
	first, second := v.Token(t, readSelf, "1h"), v.Token(t, readSelf, "1h")
	name := write(t, filepath.Join(t.TempDir(), "token"), first+"\n")
	c := dial(t, v.Env("", "VAULT_TOKEN_FILE", name))
	if err := self(t, c); err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": first})
	err := self(t, c)
	if fault.CodeOf(err) != api.CodeDenied || !strings.Contains(fault.NextOf(err), "VAULT_TOKEN_FILE") {
		t.Errorf("the same token is still in the file: %v, next %q", err, fault.NextOf(err))
	}
	write(t, name, second)
	if err := self(t, c); err != nil {
		t.Errorf("with a new token in the file: %v", err)
	}
}

func TestTokenFileRefused(t *testing.T) {
	v := vaulttest.Start(t)
	dir := t.TempDir()
	open := write(t, filepath.Join(dir, "open"), "canary-token")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]api.Code{
		open: api.CodeWrongState, filepath.Join(dir, "none"): api.CodeUnavailable, dir: api.CodeInvalid,
		write(t, filepath.Join(dir, "empty"), " \n"): api.CodeUnavailable, write(t, filepath.Join(dir, "two"), "canary one\ntwo"): api.CodeInvalid,
		write(t, filepath.Join(dir, "large"), strings.Repeat("x", 9<<10)): api.CodeInvalid,
	} {
		_, err := vault.Dial(t.Context(), vault.Config{Lookup: v.Env("", "BAO_TOKEN_FILE", name)})
		if fault.CodeOf(err) != want || fault.NextOf(err) == "" || !strings.Contains(err.Error(), "BAO_TOKEN_FILE") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, next %q, want code %s", filepath.Base(name), err, fault.NextOf(err), want)
		}
	}
}

// appRole makes a role with a policy that allows one path, and gives its id and a file with a secret id.
func appRole(t *testing.T, v *vaulttest.Server) (roleID, secretFile string) {
	t.Helper()
	if _, err := v.Call(t.Context(), "POST", "sys/auth/approle", map[string]any{"type": "approle"}); err != nil && !strings.Contains(err.Error(), "in use") {
		t.Fatal(err)
	}
	v.Do(t, "PUT", "sys/policies/acl/one-path", map[string]any{"policy": readSelf})
	v.Do(t, "POST", "auth/approle/role/keyturn", map[string]any{"token_policies": []string{"one-path"}, "token_ttl": "1h"})
	role := field(t, v.Do(t, "GET", "auth/approle/role/keyturn/role-id", nil), "role_id")
	secret := field(t, v.Do(t, "POST", "auth/approle/role/keyturn/secret-id", nil), "secret_id")
	return role, write(t, filepath.Join(t.TempDir(), "secret-id"), secret)
}

// An AppRole signs in, signs in again when its token is refused, doesn't when the policy refuses, and gives its token back.
func TestAppRole(t *testing.T) {
	v := vaulttest.Start(t)
	role, secretFile := appRole(t, v)
	c := dial(t, v.Env("", "VAULT_ROLE_ID", role, "VAULT_SECRET_ID_FILE", secretFile))
	token := func() string {
		answer, err := c.Read(t.Context(), "auth/token/lookup-self")
		if err != nil {
			t.Fatal(err)
		}
		return field(t, answer, "id")
	}
	first := token()
	if _, err := c.Read(t.Context(), "secret/other"); fault.CodeOf(err) != api.CodeDenied || !strings.Contains(fault.NextOf(err), "policy") {
		t.Errorf("a path that the policy doesn't allow: %v, next %q", err, fault.NextOf(err))
	}
	if token() != first {
		t.Error("it signed in anew because of a policy")
	}
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": first})
	second := token()
	if second == first {
		t.Error("the revoked token is used")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Call(t.Context(), "POST", "auth/token/lookup", map[string]any{"token": second}); err == nil {
		t.Error("after Close the token still lives")
	}
	if err := self(t, c); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("after Close: %v", err)
	}
}

// Many callers who are refused together sign in once.
func TestOneSignsInForAll(t *testing.T) {
	v := vaulttest.Start(t)
	role, secretFile := appRole(t, v)
	c := dial(t, v.Env("", "VAULT_ROLE_ID", role, "VAULT_SECRET_ID_FILE", secretFile))
	answer, err := c.Read(t.Context(), "auth/token/lookup-self")
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": field(t, answer, "id")})
	ids := make(chan string, 16)
	var wg sync.WaitGroup
	for range cap(ids) {
		wg.Go(func() {
			if answer, err := c.Read(t.Context(), "auth/token/lookup-self"); err != nil {
				t.Error(err)
			} else {
				ids <- field(t, answer, "id")
			}
		})
	}
	wg.Wait()
	close(ids)
	tokens := map[string]bool{}
	for id := range ids {
		tokens[id] = true
	}
	if len(tokens) != 1 {
		t.Errorf("%d tokens are in use", len(tokens))
	}
}

func TestAppRoleRefused(t *testing.T) {
	v := vaulttest.Start(t)
	role, secretFile := appRole(t, v)
	wrong := write(t, filepath.Join(t.TempDir(), "wrong"), "canary-secret-id")
	for name, env := range map[string][]string{
		"wrong secret id": {"VAULT_ROLE_ID", role, "VAULT_SECRET_ID_FILE", wrong}, "wrong role": {"VAULT_ROLE_ID", "canary-role", "VAULT_SECRET_ID_FILE", secretFile},
	} {
		_, err := vault.Dial(t.Context(), vault.Config{Lookup: v.Env("", env...)})
		known := fault.CodeOf(err) == api.CodeDenied || fault.CodeOf(err) == api.CodeUnavailable && name == "wrong secret id" // Vault 1.13 answers 500 to that
		if !known || !strings.Contains(fault.NextOf(err), "secret id") || strings.Contains(err.Error()+fault.NextOf(err), "canary") {
			t.Errorf("%s: %v, next %q", name, err, fault.NextOf(err))
		}
	}
}

func TestTLS(t *testing.T) {
	v := vaulttest.Own(t, vaulttest.Options{TLS: true})
	if err := self(t, dial(t, v.Env(v.RootToken))); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	stranger := dial(t, v.Env(v.RootToken, "VAULT_CACERT", ""))
	if err := self(t, stranger); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "VAULT_CACERT") {
		t.Errorf("without its authority: %v, next %q", err, fault.NextOf(err))
	}
	for name, env := range map[string][]string{
		"skipping": {"VAULT_SKIP_VERIFY", "true"}, "skipping, BAO_": {"BAO_SKIP_VERIFY", "1"}, "no such authority": {"VAULT_CACERT", "/nowhere.pem"}, "half a client certificate": {"VAULT_CLIENT_CERT", v.CA},
	} {
		if _, err := vault.Dial(t.Context(), vault.Config{Lookup: v.Env(v.RootToken, env...)}); fault.CodeOf(err) != api.CodeInvalid || fault.NextOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nothing is left running, and nothing of the environment is read by the library itself.
func TestCloseLeavesNothing(t *testing.T) {
	v := vaulttest.Start(t)
	t.Setenv("BAO_ADDR", "http://127.0.0.1:1")
	t.Setenv("BAO_NAMESPACE", "nobody")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c, err := vault.Dial(t.Context(), vault.Config{Lookup: v.Env(v.Token(t, readSelf, "1h"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := self(t, c); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.Write(t.Context(), "auth/token/renew-self", []byte("{}")); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestSettingsRefused(t *testing.T) {
	const addr = "https://vault.example.org:8200"
	for name, env := range map[string]map[string]string{
		"nothing":              {},
		"no address":           {"VAULT_TOKEN": "canary"},
		"plain HTTP":           {"VAULT_ADDR": "http://vault.example.org:8200", "VAULT_TOKEN": "canary"},
		"plain HTTP, by name":  {"VAULT_ADDR": "http://127.0.0.1.example.org", "VAULT_TOKEN": "canary"},
		"a socket":             {"VAULT_ADDR": "unix:///run/vault.sock", "VAULT_TOKEN": "canary"},
		"a password":           {"VAULT_ADDR": "https://a:canary@vault.example.org", "VAULT_TOKEN": "canary"},
		"a path":               {"VAULT_ADDR": addr + "/canary", "VAULT_TOKEN": "canary"},
		"a query":              {"VAULT_ADDR": addr + "?canary", "VAULT_TOKEN": "canary"},
		"no scheme":            {"VAULT_ADDR": "vault.example.org", "VAULT_TOKEN": "canary"},
		"no URL":               {"VAULT_ADDR": "https://\x00canary", "VAULT_TOKEN": "canary"},
		"no token":             {"VAULT_ADDR": addr},
		"two tokens":           {"VAULT_ADDR": addr, "VAULT_TOKEN": "canary", "BAO_TOKEN_FILE": "/canary"},
		"a token of two words": {"VAULT_ADDR": addr, "VAULT_TOKEN": "canary one\n"},
		"half an AppRole":      {"VAULT_ADDR": addr, "VAULT_ROLE_ID": "canary"},
		"the other half":       {"VAULT_ADDR": addr, "VAULT_SECRET_ID_FILE": "/canary"},
		"a token and a half":   {"VAULT_ADDR": addr, "VAULT_TOKEN": "canary", "VAULT_ROLE_ID": "canary"},
		"BAO_ wins":            {"BAO_ADDR": "http://vault.example.org", "VAULT_ADDR": addr, "VAULT_TOKEN": "canary"},
	} {
		_, err := vault.Dial(t.Context(), vault.Config{Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
		if fault.CodeOf(err) != api.CodeInvalid || fault.NextOf(err) == "" || strings.Contains(err.Error()+fault.NextOf(err), "canary") {
			t.Errorf("%s: %v, next %q", name, err, fault.NextOf(err))
		}
		if field := fault.FieldOf(err); field == "" || field == keyring.FieldURL {
			t.Errorf("%s: field %q names no variable, or says that the URL is wrong", name, field)
		}
	}
}

// fake serves answers that a healthy Vault doesn't give, and counts the calls of each path.
func fake(t *testing.T, handler http.HandlerFunc) *vault.Client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	env := map[string]string{"VAULT_ADDR": s.URL, "VAULT_TOKEN": "canary-token"}
	return dial(t, func(name string) (string, bool) { return env[name], env[name] != "" })
}

func TestAnswers(t *testing.T) {
	for status, want := range map[int]api.Code{
		200: "", 204: "", 206: api.CodeUnavailable, 301: api.CodeUnavailable, 307: api.CodeUnavailable, 400: api.CodeInvalid, 401: api.CodeDenied, 403: api.CodeDenied, 404: api.CodeNotFound,
		405: api.CodeUnavailable, 412: api.CodeUnavailable, 429: api.CodeUnavailable, 472: api.CodeUnavailable, 500: api.CodeUnavailable, 501: api.CodeUnavailable,
		502: api.CodeUnavailable, 503: api.CodeUnavailable,
	} {
		c := fake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/v1/elsewhere")
			w.Header().Set("Retry-After", "3600")
			if r.URL.Path == "/v1/elsewhere" {
				t.Errorf("status %d: the redirect was followed", status)
			}
			w.WriteHeader(status)
			if status != 204 {
				_, _ = io.WriteString(w, `{"errors":["canary-answer"]}`)
			}
		})
		_, err := c.Write(t.Context(), "transit/decrypt/k", []byte(`{"canary":"request"}`))
		if fault.CodeOf(err) != want || err != nil && strings.Contains(err.Error()+fault.NextOf(err), "canary") {
			t.Errorf("status %d: %v, want code %q", status, err, want)
		}
	}
}

func TestHalfAnAnswer(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"data":{`)
		},
		"cut before the status": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("canary", 60_000))
		},
		"endless refusal": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, strings.Repeat("canary", 60_000))
		},
	} {
		_, err := fake(t, handler).Read(t.Context(), "secret/x")
		if fault.CodeOf(err) != api.CodeUnavailable || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A server that is busy for a moment is asked again, with the whole request; what was sent is wiped afterwards.
func TestTriesAgain(t *testing.T) {
	calls := 0
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost {
			return
		}
		if calls++; string(body) != `{"plaintext":"x"}` || r.Header.Get("X-Vault-Request") != "true" || r.Header.Get("X-Vault-Token") != "canary-token" {
			t.Errorf("attempt %d sent %q, %v", calls, body, r.Header)
		}
		if calls < 3 {
			w.WriteHeader(503)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	})
	body := []byte(`{"plaintext":"x"}`)
	if _, err := c.Write(t.Context(), "transit/encrypt/k", body); err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	if string(body) != strings.Repeat("\x00", len(body)) {
		t.Errorf("the request wasn't wiped: %q", body)
	}
}

// Who goes away isn't kept waiting by a slow server; a deadline is the server's fault, leaving isn't.
func TestSlowServer(t *testing.T) {
	asked := make(chan struct{}, 4)
	release := make(chan struct{})
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			asked <- struct{}{}
			<-release
		}
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Read(ctx, "secret/slow"); fault.CodeOf(err) != api.CodeCancelled {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 1)
	defer cancel()
	if _, err := c.Read(ctx, "secret/slow"); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("out of time: %v", err)
	}
}

// Of the environment, the namespace travels; nothing else does.
func TestNamespace(t *testing.T) {
	got := ""
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/secret/x" {
			got = r.Header.Get("X-Vault-Namespace")
		}
	}))
	defer s.Close()
	env := map[string]string{"VAULT_ADDR": s.URL, "VAULT_TOKEN": "t", "BAO_NAMESPACE": "team/a", "VAULT_NAMESPACE": "other"}
	if _, err := dial(t, func(name string) (string, bool) { return env[name], env[name] != "" }).Read(t.Context(), "secret/x"); err != nil || got != "team/a" {
		t.Errorf("the namespace is %q, %v", got, err)
	}
}

func TestPaths(t *testing.T) {
	for raw, want := range map[string]string{
		"/transit/phi": "transit/phi", "/team/a/secret/b_c.d@e-f": "team/a/secret/b_c.d@e-f", "": "", "/": "", "/transit": "", "transit/phi": "", "//phi": "", "/a//b": "",
		"/a/b/": "", "/a/../b": "", "/a/./b": "", "/a/.b": "", "/a/b%2fc": "", "/a/b c": "", "/a/b?c": "", "/a/ä": "", "/a/" + strings.Repeat("b", 512): "",
	} {
		if got, ok := vault.ValidPath(raw); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", raw, got, ok)
		}
	}
}

func TestMountOf(t *testing.T) {
	v := vaulttest.Start(t)
	path := v.Mount(t, "kv-v2", nil)
	c := dial(t, v.Env(v.RootToken))
	m, err := c.MountOf(t.Context(), path+"/a/b")
	if err != nil || m.Path != path+"/" || m.Type != "kv" || m.Options["version"] != "2" || len(m.UUID) != 36 {
		t.Errorf("the mount is %+v, %v", m, err)
	}
	if _, err := c.MountOf(t.Context(), "nowhere/a"); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("no mount: %v", err)
	}
	for name, answer := range map[string]string{
		"garbage": "<html>", "nothing": `{"data":{}}`, "another's": `{"data":{"path":"other/","uuid":"x","type":"kv"}}`, "a prefix": `{"data":{"path":"sec","uuid":"x","type":"kv"}}`,
	} {
		c := fake(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		if m, err := c.MountOf(t.Context(), "secret/a"); fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
