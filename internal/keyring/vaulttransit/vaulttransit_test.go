package vaulttransit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/keyring/vaulttransit"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/proctest"
	"github.com/keyturn/keyturn/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

var binding = keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 3, State: "active", Seq: 7}

func as(v *vaulttest.Server, token string, pairs ...string) vaulttransit.Driver {
	return vaulttransit.Driver{Vault: vault.Config{Lookup: v.Env(token, pairs...)}}
}

// engine mounts a Transit engine with two keys, and gives a token of the policies that the provider's page promises to suffice.
func engine(t *testing.T, v *vaulttest.Server) (mount, token string) {
	t.Helper()
	mount = v.Mount(t, "transit", nil)
	v.Do(t, "POST", mount+"/keys/keyturn", nil)
	v.Do(t, "POST", mount+"/keys/second", map[string]any{"type": "chacha20-poly1305"})
	policy := vaulttest.Policy(t, "vaulttransit.md", 0, `"transit/`, `"`+mount+"/")
	return mount, v.Token(t, policy+strings.ReplaceAll(policy, "/keyturn\"", "/second\""), "1h")
}

func TestVaultTransit(t *testing.T) {
	v := vaulttest.Start(t)
	mount, token := engine(t, v)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	opens := func(name string) func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error) {
		return func(ctx context.Context, _ *testing.T, base string, limit time.Duration) (keyring.MasterKey, error) {
			d := as(v, "", "VAULT_ADDR", base, "VAULT_TOKEN_FILE", file)
			d.Vault.Limit = limit
			return d.Open(ctx, "vaulttransit:///"+mount+"/"+name)
		}
	}
	refuse := func(status int) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, text string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
		}
	}
	keyringtest.ExerciseRemote(t, keyringtest.RemoteHarness{
		Server: v.URL, Open: opens("keyturn"), Other: opens("second"), Calls: 15, Throttle: refuse(http.StatusTooManyRequests), Deny: refuse(http.StatusForbidden),
		Headers: []string{"X-Vault-Token", "X-Vault-Request"}, Secrets: []string{token},
	})
}

func open(t *testing.T, d vaulttransit.Driver, url string) keyring.MasterKey {
	t.Helper()
	k, err := d.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func opening(t *testing.T, d vaulttransit.Driver, url string) error {
	t.Helper()
	k, err := d.Open(t.Context(), url)
	if err == nil {
		_ = k.Close()
	}
	return err
}

func TestURLsRefused(t *testing.T) {
	d := vaulttransit.Driver{Vault: vault.Config{Lookup: func(name string) (string, bool) { t.Errorf("%s is read", name); return "", false }}}
	for _, url := range []string{
		"vaulttransit://", "vaulttransit:///", "vaulttransit:///transit", "vaulttransit://transit/k", "vaulttransit:transit/k", "vaulttransit:///transit/k/", "vaulttransit:///transit//k",
		"vaulttransit:///transit/../k", "vaulttransit:///transit/k?", "vaulttransit:///transit/k?address=https://evil.example", "vaulttransit:///transit/k#x", "vaulttransit:///transit/k%20",
		"vaulttransit://u:canary@/transit/k", "vaultkv:///transit/k", "Vaulttransit:///transit/k", "",
	} {
		err := opening(t, d, url)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v, field %q", url, err, fault.FieldOf(err))
		}
	}
}

// Keys that would protect less are refused, by the real server's own descriptions.
func TestKeysRefused(t *testing.T) {
	v := vaulttest.Start(t)
	mount, _ := engine(t, v)
	for name, c := range map[string]struct {
		options map[string]any
		want    api.Code
	}{
		"aes128": {map[string]any{"type": "aes128-gcm96"}, api.CodeWrongState}, "derived": {map[string]any{"derived": true}, api.CodeWrongState},
		"convergent": {map[string]any{"derived": true, "convergent_encryption": true}, api.CodeWrongState}, "rsa": {map[string]any{"type": "rsa-2048"}, api.CodeWrongState},
		"ed25519": {map[string]any{"type": "ed25519"}, api.CodeWrongState}, "none": {nil, api.CodeNotFound},
	} {
		if c.options != nil {
			v.Do(t, "POST", mount+"/keys/"+name, c.options)
		}
		err := opening(t, as(v, v.RootToken), "vaulttransit:///"+mount+"/"+name)
		if fault.CodeOf(err) != c.want || fault.NextOf(err) == "" || fault.FieldOf(err) != "" {
			t.Errorf("%s: %v, next %q, want code %s", name, err, fault.NextOf(err), c.want)
		}
	}
	if _, err := v.Call(t.Context(), "GET", mount+"/keys/none", nil); err == nil {
		t.Error("looking for a key made it")
	}
	kv := v.Mount(t, "kv", nil)
	if err := opening(t, as(v, v.RootToken), "vaulttransit:///"+kv+"/keyturn"); err == nil {
		t.Error("another engine's path opened")
	}
}

// A server that doesn't know associated_data ignores it, as Vault before 1.13 did: the real server behind a proxy that takes it
// out. It is found out and refused.
func TestServerWithoutBindingIsRefused(t *testing.T) {
	v := vaulttest.Start(t)
	mount, token := engine(t, v)
	to, err := url.Parse(v.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	taken := 0
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var fields map[string]any
		if json.Unmarshal(body, &fields) == nil && fields["associated_data"] != nil {
			delete(fields, "associated_data")
			taken++
			body, _ = json.Marshal(fields)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		proxy.ServeHTTP(w, r)
	}))
	defer old.Close()
	err = opening(t, as(v, token, "VAULT_ADDR", old.URL), "vaulttransit:///"+mount+"/keyturn")
	if fault.CodeOf(err) != api.CodeWrongState || !strings.Contains(fault.NextOf(err), "1.13") || taken != 3 {
		t.Errorf("after %d bindings were taken out: %v, next %q", taken, err, fault.NextOf(err))
	}
}

// Rotating the key in Vault leaves old wrappings open and the fingerprint as it was; a version that may not decrypt any more is
// told from a wrapping that was changed.
func TestRotation(t *testing.T) {
	v := vaulttest.Start(t)
	mount, token := engine(t, v)
	d, url := as(v, token), "vaulttransit:///"+mount+"/keyturn"
	k := open(t, d, url)
	m := material.Random(32)
	old, err := k.Wrap(t.Context(), m, binding)
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", mount+"/keys/keyturn/rotate", nil)
	fresh, err := k.Wrap(t.Context(), m, binding)
	if err != nil || !bytes.Contains(fresh, []byte("vault:v2:")) {
		t.Fatalf("after a rotation it wraps to %q, %v", fresh, err)
	}
	for name, blob := range map[string][]byte{"old": old, "new": fresh} {
		if out, err := k.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
			t.Errorf("after a rotation the %s wrapping: %v", name, err)
		}
	}
	v.Do(t, "POST", mount+"/keys/keyturn/config", map[string]any{"min_decryption_version": 2})
	again := open(t, d, url)
	if again.ID() != k.ID() {
		t.Errorf("the fingerprint was %s, it is %s", k.ID(), again.ID())
	}
	if out, err := again.Unwrap(t.Context(), fresh, binding); err != nil || !out.Equal(m) {
		t.Errorf("the new wrapping: %v", err)
	}
	_, err = again.Unwrap(t.Context(), old, binding)
	if fault.CodeOf(err) != api.CodeWrongState || !strings.Contains(fault.NextOf(err), "min_decryption_version") {
		t.Errorf("the old wrapping: %v, next %q", err, fault.NextOf(err))
	}
}

// The same key has one fingerprint wherever its engine is mounted; another engine's key of the same name has another.
func TestFingerprint(t *testing.T) {
	v := vaulttest.Start(t)
	mount, _ := engine(t, v)
	elsewhere, _ := engine(t, v)
	d := as(v, v.RootToken)
	k, other := open(t, d, "vaulttransit:///"+mount+"/keyturn"), open(t, d, "vaulttransit:///"+elsewhere+"/keyturn")
	if k.ID() == other.ID() || len(k.ID()) != 32 {
		t.Errorf("fingerprints %s and %s", k.ID(), other.ID())
	}
	blob, err := k.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	var queued struct {
		ID string `json:"migration_id"`
	}
	if err := json.Unmarshal(v.Do(t, "POST", "sys/remount", map[string]any{"from": mount, "to": "moved/" + mount}), &queued); err != nil {
		t.Fatal(err)
	}
	for status := ""; status != "success"; { // Vault moves in the background and is asked until it has
		answer := v.Do(t, "GET", "sys/remount/status/"+queued.ID, nil)
		var a struct {
			Data struct {
				Info struct{ Status string } `json:"migration_info"`
			}
		}
		if err := json.Unmarshal(answer, &a); err != nil || a.Data.Info.Status == "failure" {
			t.Fatalf("moving the engine: %s, %v", answer, err)
		}
		status = a.Data.Info.Status
	}
	moved := open(t, d, "vaulttransit:///moved/"+mount+"/keyturn")
	if moved.ID() != k.ID() {
		t.Errorf("moved, its fingerprint was %s and is %s", k.ID(), moved.ID())
	}
	if _, err := moved.Unwrap(t.Context(), blob, binding); err != nil {
		t.Errorf("moved: %v", err)
	}
}

// A key that was deleted, and one that was made anew under its name: neither opens anything, and both are told apart.
func TestDeletedKey(t *testing.T) {
	v := vaulttest.Start(t)
	mount, token := engine(t, v)
	k := open(t, as(v, token), "vaulttransit:///"+mount+"/keyturn")
	blob, err := k.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", mount+"/keys/keyturn/config", map[string]any{"deletion_allowed": true})
	v.Do(t, "DELETE", mount+"/keys/keyturn", nil)
	if _, err := k.Unwrap(t.Context(), blob, binding); fault.CodeOf(err) != api.CodeNotFound || fault.NextOf(err) == "" {
		t.Errorf("deleted, unwrapping: %v", err)
	}
	if _, err := k.Wrap(t.Context(), material.Random(32), binding); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("deleted, wrapping (which must not make a key): %v", err)
	}
	v.Do(t, "POST", mount+"/keys/keyturn", nil)
	if _, err := k.Unwrap(t.Context(), blob, binding); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("made anew: %v", err)
	}
}

// What the real server does when it is sealed, asked too often, or not scheduled at all; and what it does about tokens.
func TestOutages(t *testing.T) {
	v := vaulttest.Own(t, vaulttest.Options{})
	mount, token := engine(t, v)
	d := as(v, token)
	k := open(t, d, "vaulttransit:///"+mount+"/keyturn")
	d.Vault.Limit = time.Second
	brief := open(t, d, "vaulttransit:///"+mount+"/keyturn")
	m := material.Random(32)
	blob, err := k.Wrap(t.Context(), m, binding)
	if err != nil {
		t.Fatal(err)
	}
	lookBy := func(k keyring.MasterKey, when string, want api.Code) {
		t.Helper()
		out, err := k.Unwrap(t.Context(), blob, binding)
		if fault.CodeOf(err) != want || err == nil && !out.Equal(m) {
			t.Errorf("%s: %v, want code %q", when, err, want)
		}
	}
	look := func(when string, want api.Code) { t.Helper(); lookBy(k, when, want) }
	v.Seal(t)
	look("sealed", api.CodeUnavailable)
	v.Unseal(t)
	look("unsealed", "")
	v.Do(t, "POST", "sys/quotas/rate-limit/tight", map[string]any{"path": mount + "/", "rate": 0.001, "interval": "1h"})
	look("the one call that is allowed", "")
	look("asked too often", api.CodeUnavailable)
	v.Do(t, "DELETE", "sys/quotas/rate-limit/tight", nil)
	look("the limit is lifted", "")
	if err := proctest.Pause(v.PID()); err != nil {
		t.Fatal(err)
	}
	lookBy(brief, "stopped", api.CodeUnavailable)
	if err := syscall.Kill(v.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	look("running again", "")
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": token})
	look("its token is revoked", api.CodeDenied)
}

// OpenBao describes its keys as Vault does, as far as it matters: recorded from a server.
func TestRecordedDescriptions(t *testing.T) {
	d := vaulttransit.Driver{Vault: vault.Config{Transport: vaulttest.Replay(t, "testdata/openbao.jsonl"), Lookup: func(name string) (string, bool) {
		env := map[string]string{"BAO_ADDR": "https://bao.example.org", "BAO_TOKEN": "root"}
		return env[name], env[name] != ""
	}}}
	for name, want := range map[string]string{"conv": "convergent", "e": "type", "ed": "type", "k1": "Transit engine"} { // k1 is good; its mount wasn't recorded
		if err := opening(t, d, "vaulttransit:///transit/"+name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to speak of its %s", name, err, want)
		}
	}
}
