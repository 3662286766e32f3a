package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// initialise makes the server's own keys (one share), keeps them, and unseals it.
func (s *Server) initialise(ctx context.Context) error {
	answer, err := s.call(ctx, http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	if err != nil {
		return err
	}
	var made struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	if err := json.Unmarshal(answer, &made); err != nil || len(made.Keys) != 1 {
		return fmt.Errorf("initialising Vault: it answered %d keys: %w", len(made.Keys), err)
	}
	s.unsealKey, s.RootToken = made.Keys[0], made.RootToken
	return s.unseal(ctx)
}

func (s *Server) unseal(ctx context.Context) error {
	_, err := s.call(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": s.unsealKey})
	return err
}

// Seal has the server forget its keys, as after a restart: it answers 503 until Unseal.
func (s *Server) Seal(tb testing.TB) {
	tb.Helper()
	s.Do(tb, http.MethodPut, "sys/seal", nil)
}

// Unseal undoes Seal.
func (s *Server) Unseal(tb testing.TB) {
	tb.Helper()
	if err := s.Unsealed(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// Unsealed is Unseal outside of a test.
func (s *Server) Unsealed(ctx context.Context) error { return s.unseal(ctx) }

// Mount mounts a secrets engine of this type at a path of its own and returns the path.
func (s *Server) Mount(tb testing.TB, engine string, options map[string]string) string {
	tb.Helper()
	path := "t" + strings.ToLower(rand.Text()[:12])
	s.Do(tb, http.MethodPost, "sys/mounts/"+path, map[string]any{"type": engine, "options": options})
	return path
}

// Token makes a token with one policy, of this text, that lives for ttl ("1h") and can be renewed. The token's policies are
// that one and Vault's default.
func (s *Server) Token(tb testing.TB, policy, ttl string) string {
	tb.Helper()
	name := "p" + strings.ToLower(rand.Text()[:12])
	s.Do(tb, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	var made struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	answer := s.Do(tb, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}, "ttl": ttl, "renewable": true})
	if err := json.Unmarshal(answer, &made); err != nil || made.Auth.ClientToken == "" {
		tb.Fatalf("making a token: %v", err)
	}
	return made.Auth.ClientToken
}

// Do makes a call as root and gives the answer. Anything but a success fails the test.
func (s *Server) Do(tb testing.TB, method, path string, in any) []byte {
	tb.Helper()
	answer, err := s.call(tb.Context(), method, path, in)
	if err != nil {
		tb.Fatal(err)
	}
	return answer
}

// Call is Do outside of a test.
func (s *Server) Call(ctx context.Context, method, path string, in any) ([]byte, error) {
	return s.call(ctx, method, path, in)
}

func (s *Server) call(ctx context.Context, method, path string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	req.Header.Set("X-Vault-Request", "true")
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("asking Vault for %s %s: it answered %s: %s", method, path, resp.Status, answer)
	}
	return answer, nil
}

// Env is the environment of a program that signs in to this server with a token: a Lookup for vault.Config. Pairs of names and
// values add to it; an empty value takes one away.
func (s *Server) Env(token string, pairs ...string) func(string) (string, bool) {
	env := map[string]string{"VAULT_ADDR": s.URL, "VAULT_TOKEN": token, "VAULT_CACERT": s.CA}
	for i := 0; i+1 < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return func(name string) (string, bool) { return env[name], env[name] != "" }
}

// Policy is the n-th policy (from 0) that a page of docs/providers shows, with mounts and names exchanged for those of a test, in
// pairs. So what the page promises to suffice is what the tests run with.
func Policy(tb testing.TB, page string, n int, pairs ...string) string {
	tb.Helper()
	src, err := source()
	if err != nil {
		tb.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(src, "..", "..", "docs", "providers", page))
	if err != nil {
		tb.Fatal(err)
	}
	blocks := strings.Split(string(text), "```hcl\n")
	if len(blocks) < n+2 {
		tb.Fatalf("%s shows %d policies", page, len(blocks)-1)
	}
	policy, _, _ := strings.Cut(blocks[n+1], "```")
	exchanged := strings.NewReplacer(pairs...).Replace(policy)
	if len(pairs) > 0 && exchanged == policy {
		tb.Fatalf("%s: the policy doesn't name %s", page, pairs[0])
	}
	return exchanged
}
