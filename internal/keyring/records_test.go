package keyring_test

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
)

func TestRecords(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	b := keyring.Binding{Tenant: "is filled in", Kind: "dataset-dsn", ID: "patients", Version: 1}
	for _, p := range keys.KEKPurposes() {
		blob, err := ring.Seal(t.Context(), p, b, []byte("postgres://secret"))
		if err != nil || bytes.Contains(blob, []byte("secret")) {
			t.Fatalf("%s: %v", p, err)
		}
		if out, err := ring.Unseal(t.Context(), p, b, blob); err != nil || string(out) != "postgres://secret" {
			t.Errorf("%s: %q, %v", p, out, err)
		}
		for _, other := range keys.KEKPurposes() {
			if other == p {
				continue
			}
			if _, err := ring.Unseal(t.Context(), other, b, blob); fault.CodeOf(err) != api.CodeIntegrity {
				t.Errorf("sealed for %s, unsealed for %s: %v", p, other, err)
			}
		}
		for name, change := range map[string]func(*keyring.Binding){
			"kind": func(b *keyring.Binding) { b.Kind = "audit-key" }, "id": func(b *keyring.Binding) { b.ID = "orders" },
			"version": func(b *keyring.Binding) { b.Version++ }, "state": func(b *keyring.Binding) { b.State = "x" }, "sequence": func(b *keyring.Binding) { b.Seq++ },
		} {
			c := b
			change(&c)
			if _, err := ring.Unseal(t.Context(), p, c, blob); fault.CodeOf(err) != api.CodeIntegrity {
				t.Errorf("another %s: %v", name, err)
			}
		}
		for name, bad := range map[string][]byte{"nothing": nil, "text": []byte("postgres://x"), "a bit": flip(blob), "cut": blob[:len(blob)-1]} {
			if _, err := ring.Unseal(t.Context(), p, b, bad); fault.CodeOf(err) != api.CodeIntegrity {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// Sealed under a generation that was replaced, and opened still (P4).
	blob, err := ring.Seal(t.Context(), keys.KEKAudit, b, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := ring.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKAudit})
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if err := ring.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Unseal(t.Context(), keys.KEKAudit, b, blob); err != nil {
		t.Errorf("under an older generation: %v", err)
	}
}

// CVE-2026-22728 (row 63): rotating a sealed value could widen its scope, since the new scope came from the request.
// Here a rewrapped ciphertext has the context, key and length of the old one, and whoever presents another context gets
// nothing at all.
func TestAdvisory_CVE_2026_22728(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	keyringtest.Rotate(t, ring, src, &key)
	other := keyringtest.NewKey(t, ring, src, "pii")
	version := func(k *keys.Key, n uint32) *envelope.Key {
		v, err := ring.Version(t.Context(), k, n)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	context := func(patient string) envelope.Context {
		c, err := envelope.NewContext(map[string]string{"patient": patient})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	from, to := version(&key, 1), version(&key, 2)
	blob, err := from.Seal(nil, []byte("078-05-1120"), context("17"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := keyring.Rewrap([]byte("before"), from, to, blob, context("17"))
	if err != nil || !bytes.HasPrefix(again, []byte("before")) || len(again) != 6+len(blob) {
		t.Fatalf("rewrapping: %v", err)
	}
	again = again[6:]
	if out, err := to.Open(nil, again, context("17")); err != nil || string(out) != "078-05-1120" {
		t.Errorf("opened to %q, %v", out, err)
	}
	if info, err := envelope.Inspect(again); err != nil || info.KeyID != key.ID || info.Version != 2 {
		t.Errorf("rewrapped as %+v, %v", info, err)
	}
	for name, refused := range map[string]func() ([]byte, error){
		"another context":      func() ([]byte, error) { return keyring.Rewrap(nil, from, to, blob, context("18")) },
		"no context":           func() ([]byte, error) { return keyring.Rewrap(nil, from, to, blob, nil) },
		"opened as another's":  func() ([]byte, error) { return keyring.Rewrap(nil, version(&other, 1), to, blob, context("17")) },
		"an older context":     func() ([]byte, error) { return to.Open(nil, again, context("18")) },
		"a changed ciphertext": func() ([]byte, error) { return keyring.Rewrap(nil, from, to, flip(blob), context("17")) },
	} {
		if out, err := refused(); out != nil || fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

func TestDataKey(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	sealer, err := ring.Version(t.Context(), &key, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{16, 32, 64} {
		m, blob, err := keyring.DataKey(sealer, nil, n)
		if err != nil || m.Len() != n {
			t.Fatal(err)
		}
		if out, err := sealer.Open(nil, blob, nil); err != nil || !bytes.Equal(out, m.Expose()) {
			t.Errorf("%d bytes: the sealed one opens to another: %v", n, err)
		}
	}
	for _, n := range []int{-1, 0, 15, 65} {
		if _, _, err := keyring.DataKey(sealer, nil, n); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	sealer.Destroy()
	if m, _, err := keyring.DataKey(sealer, nil, 32); m != nil || err == nil {
		t.Errorf("under a destroyed key: %v", err)
	}
}
