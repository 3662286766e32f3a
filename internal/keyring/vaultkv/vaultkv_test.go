package vaultkv_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/keyring/vaultkv"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

const (
	one = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	two = "YW5vdGhlciBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3Q="
)

// as signs in to a server with a token.
func as(v *vaulttest.Server, token string) vaultkv.Driver {
	return vaultkv.Driver{Vault: vault.Config{Lookup: v.Env(token)}}
}

// put writes a secret of either version.
func put(t *testing.T, v *vaulttest.Server, mount, version, path string, fields map[string]any) {
	t.Helper()
	if version == "2" {
		v.Do(t, "POST", mount+"/data/"+path, map[string]any{"data": fields})
		return
	}
	v.Do(t, "POST", mount+"/"+path, fields)
}

// Both versions of the engine, found out and named, with the policy that the page of the provider promises to suffice.
func TestVaultKV(t *testing.T) {
	v := vaulttest.Start(t)
	for version, engine := range map[string]int{"2": 0, "1": 1} {
		mount := v.Mount(t, "kv", map[string]string{"version": version})
		put(t, v, mount, version, "keyturn/master", map[string]any{"key": one})
		put(t, v, mount, version, "keyturn/second", map[string]any{"key": two})
		policy := vaulttest.Policy(t, "vaultkv.md", engine, "secret/", mount+"/")
		token := v.Token(t, policy+strings.ReplaceAll(policy, "/master", "/second"), "1h")
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, named := range []string{"", "&version=" + version} {
			opens := func(name string) func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error) {
				return func(ctx context.Context, _ *testing.T, base string, limit time.Duration) (keyring.MasterKey, error) {
					d := vaultkv.Driver{Vault: vault.Config{Limit: limit, Lookup: v.Env("", "VAULT_ADDR", base, "VAULT_TOKEN_FILE", file)}}
					return d.Open(ctx, "vaultkv:///"+mount+"/keyturn/"+name+"?field=key"+named)
				}
			}
			t.Run("KV "+version+named, func(t *testing.T) {
				keyringtest.ExerciseRemote(t, keyringtest.RemoteHarness{
					Server: v.URL, Open: opens("master"), Other: opens("second"), Calls: 6,
					Throttle: func(w http.ResponseWriter, text string) { refuse(w, http.StatusTooManyRequests, text) },
					Deny:     func(w http.ResponseWriter, text string) { refuse(w, http.StatusForbidden, text) },
					Headers:  []string{"X-Vault-Token", "X-Vault-Request"}, Secrets: []string{token, one, two},
				})
			})
		}
	}
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
}

func TestDescribesItself(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.Mount(t, "kv-v2", nil)
	put(t, v, mount, "2", "a/b", map[string]any{"value": one + "\r\n", "url.safe-1": strings.TrimRight(one, "=") + "\n"})
	ids := map[string]bool{}
	for _, url := range []string{"/a/b", "/a/b?field=value", "/a/b?field=url.safe-1", "/a/b?version=2", "/a/b?field=value&version=2"} {
		k, err := as(v, v.RootToken).Open(t.Context(), "vaultkv:///"+mount+url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if k.URL() != "vaultkv:///"+mount+url || k.Provider() != "vaultkv" || k.Kind() != keyring.Holds {
			t.Errorf("%s opens as %s, %s, %s", url, k.URL(), k.Provider(), k.Kind())
		}
		ids[k.ID()] = true
		_ = k.Close()
	}
	if len(ids) != 1 {
		t.Errorf("one key has %d fingerprints", len(ids))
	}
}

func TestURLsRefused(t *testing.T) {
	for _, url := range []string{
		"vaultkv://", "vaultkv:///", "vaultkv:///secret", "vaultkv://secret/a", "vaultkv:secret/a", "vaultkv:/secret/a", "vaultkv:///secret/a/", "vaultkv:///secret//a", "vaultkv:///secret/../a",
		"vaultkv:///secret/a%2fb", "vaultkv:///secret/a%2e", "vaultkv:///secret/a#x", "vaultkv://u:p@/secret/a", "vaultkv:///secret/a?", "vaultkv:///secret/a?field=", "vaultkv:///secret/a?field=a%20b",
		"vaultkv:///secret/a?field=a&field=b", "vaultkv:///secret/a?version=3", "vaultkv:///secret/a?version=", "vaultkv:///secret/a?version=2&field=a", "vaultkv:///secret/a?address=https://evil.example",
		"vaultkv:///secret/a?Field=a", "vaultkv:///secret/a?field=a;version=2", "VAULTKV:///secret/a", "vaulttransit:///secret/a", "canary" + one, "",
	} {
		d := vaultkv.Driver{Vault: vault.Config{Lookup: func(string) (string, bool) { t.Errorf("%q: the environment is read", url); return "", false }}}
		for doing, err := range map[string]error{"opening": opened(t, d, url), "generating": d.Generate(t.Context(), url)} {
			if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s %q: %v, field %q", doing, url, err, fault.FieldOf(err))
			}
		}
	}
}

func opened(t *testing.T, d vaultkv.Driver, url string) error {
	t.Helper()
	k, err := d.Open(t.Context(), url)
	if err == nil {
		_ = k.Close()
	}
	return err
}

// What is in Vault may be anything; errors name the field, never the value.
func TestSecretsRefused(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.Mount(t, "kv-v2", nil)
	put(t, v, mount, "2", "a", map[string]any{"short": one[:20], "text": "canary-in-a-field", "number": 17, "list": []string{one}, "null": nil, "escaped": "canary\u0001\t", "empty": "", "two": one + "\n" + one})
	put(t, v, mount, "2", "gone", map[string]any{"value": one})
	v.Do(t, "DELETE", mount+"/data/gone", nil)
	for url, want := range map[string]api.Code{
		"/a?field=short": api.CodeInvalid, "/a?field=text": api.CodeInvalid, "/a?field=number": api.CodeInvalid, "/a?field=list": api.CodeInvalid, "/a?field=null": api.CodeInvalid,
		"/a?field=escaped": api.CodeInvalid, "/a?field=empty": api.CodeInvalid, "/a?field=two": api.CodeInvalid, "/a?field=none": api.CodeNotFound, "/a": api.CodeNotFound, "/gone": api.CodeNotFound, "/none": api.CodeNotFound,
		"/a?version=1": api.CodeNotFound,
	} {
		err := opened(t, as(v, v.RootToken), "vaultkv:///"+mount+url)
		if fault.CodeOf(err) != want || err != nil && (strings.Contains(err.Error(), "canary") || fault.FieldOf(err) == keyring.FieldURL) {
			t.Errorf("%s: %v (field %q), want code %s", url, err, fault.FieldOf(err), want)
		}
	}
	transit := v.Mount(t, "transit", nil)
	if err := opened(t, as(v, v.RootToken), "vaultkv:///"+transit+"/a"); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("another engine: %v", err)
	}
	if err := opened(t, as(v, v.Token(t, `path "x/y" { capabilities = ["read"] }`, "1h")), "vaultkv:///"+mount+"/a"); fault.CodeOf(err) != api.CodeDenied || fault.NextOf(err) == "" {
		t.Errorf("without the policy: %v, next %q", err, fault.NextOf(err))
	}
}

// Generate makes a key that opens, and replaces nothing: not a secret that is there, nor one that was deleted.
func TestGenerate(t *testing.T) {
	v := vaulttest.Start(t)
	for _, version := range []string{"1", "2"} {
		mount := v.Mount(t, "kv", map[string]string{"version": version})
		d := as(v, v.RootToken)
		url := "vaultkv:///" + mount + "/keyturn/master?field=root.key"
		if err := d.Generate(t.Context(), url); err != nil {
			t.Fatalf("KV %s: %v", version, err)
		}
		k, err := d.Open(t.Context(), url)
		if err != nil {
			t.Fatalf("KV %s: %v", version, err)
		}
		put(t, v, mount, version, "taken", map[string]any{"other": "x"})
		for _, taken := range []string{url, "vaultkv:///" + mount + "/taken"} {
			if err := d.Generate(t.Context(), taken); fault.CodeOf(err) != api.CodeConflict || fault.NextOf(err) == "" {
				t.Errorf("KV %s, %s again: %v", version, taken, err)
			}
		}
		again, err := d.Open(t.Context(), url)
		if err != nil || again.ID() != k.ID() {
			t.Errorf("KV %s: the key was replaced, or %v", version, err)
		}
		_, _ = k.Close(), again.Close()
		if version == "2" {
			v.Do(t, "DELETE", mount+"/data/keyturn/master", nil)
			if err := d.Generate(t.Context(), url); fault.CodeOf(err) != api.CodeConflict {
				t.Errorf("over a deleted secret: %v", err)
			}
		}
		reader := as(v, v.Token(t, vaulttest.Policy(t, "vaultkv.md", map[string]int{"1": 1, "2": 0}[version], "secret/", mount+"/"), "1h"))
		if err := reader.Generate(t.Context(), "vaultkv:///"+mount+"/keyturn/other"); fault.CodeOf(err) != api.CodeDenied {
			t.Errorf("KV %s: a reader generates: %v", version, err)
		}
	}
}

// A sealed Vault is unavailable until it is unsealed; a key that is open needs it no more.
func TestSealed(t *testing.T) {
	v := vaulttest.Own(t, vaulttest.Options{})
	mount := v.Mount(t, "kv-v2", nil)
	put(t, v, mount, "2", "a", map[string]any{"value": one})
	d := as(v, v.RootToken)
	k, err := d.Open(t.Context(), "vaultkv:///"+mount+"/a")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	v.Seal(t)
	if err := opened(t, d, k.URL()); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "unseal") {
		t.Errorf("sealed: %v, next %q", err, fault.NextOf(err))
	}
	m, b := material.Random(32), keyring.Binding{Kind: "kek/data"}
	blob, err := k.Wrap(t.Context(), m, b)
	if err != nil {
		t.Fatalf("sealed, wrapping under a key that is open: %v", err)
	}
	if out, err := k.Unwrap(t.Context(), blob, b); err != nil || !out.Equal(m) {
		t.Errorf("sealed, unwrapping under a key that is open: %v", err)
	}
	v.Unseal(t)
	if err := opened(t, d, k.URL()); err != nil {
		t.Errorf("unsealed: %v", err)
	}
}

// OpenBao's own answers, as they were recorded from a server.
func TestRecordedAnswers(t *testing.T) {
	replay := vaulttest.Replay(t, "testdata/openbao.jsonl")
	d := vaultkv.Driver{Vault: vault.Config{Transport: replay, Lookup: func(name string) (string, bool) {
		env := map[string]string{"BAO_ADDR": "https://bao.example.org", "BAO_TOKEN": "root"}
		return env[name], env[name] != ""
	}}}
	if err := opened(t, d, "vaultkv:///x/a?field=k"); fault.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "32 bytes") {
		t.Errorf("the recorded secret, which is no key: %v", err)
	}
	if err := opened(t, d, "vaultkv:///x/a?field=none"); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a field that it doesn't have: %v", err)
	}
	replay.Next(t, "GET", "/v1/x/data/a") // the answer after its deletion
	if err := opened(t, d, "vaultkv:///x/a?field=k"); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("the deleted secret: %v", err)
	}
	if err := d.Generate(t.Context(), "vaultkv:///x/a"); err != nil {
		t.Errorf("generating, answered with success: %v", err)
	}
	replay.Next(t, "POST", "/v1/x/data/a")
	if err := d.Generate(t.Context(), "vaultkv:///x/a"); fault.CodeOf(err) != api.CodeConflict {
		t.Errorf("generating, answered that the version isn't 0: %v", err)
	}
}
