// Package keyringtest holds what every master-key provider must pass, and a small store and ring for the tests of the
// rooms above:
//
//	func TestFile(t *testing.T) {
//		keyringtest.Exercise(t, keyringtest.Harness{Open: openOne, Other: openAnother})
//	}
//
// A provider over a network runs [ExerciseRemote] instead, which is this and what a network can do to it.
//
// A provider that can't run a part (a key management service that isn't there) says so by name in its own test; the
// parts themselves are not optional.
package keyringtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// Harness opens the provider's keys. Both functions may be called often; the caller of them closes the result.
type Harness struct {
	Open  func(t *testing.T) keyring.MasterKey // always the same key
	Other func(t *testing.T) keyring.MasterKey // another one of the same provider
}

// binding is what the parts wrap under.
var binding = keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 3, State: "active", Seq: 7}

// Exercise runs the contract of keyring.MasterKey over a provider.
func Exercise(t *testing.T, h Harness) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"describes itself", describes},
		{"unwraps what it wrapped", roundTrip},
		{"refuses other bindings", otherBindings},
		{"refuses other keys", otherKeys},
		{"refuses changed blobs", changedBlobs},
		{"works from many goroutines", concurrently},
		{"obeys its context", cancelled},
		{"closes", closes},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, h) })
	}
}

func open(t *testing.T, f func(*testing.T) keyring.MasterKey) keyring.MasterKey {
	t.Helper()
	m := f(t)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func wrap(t *testing.T, k keyring.MasterKey, m *material.Bytes) []byte {
	t.Helper()
	blob, err := k.Wrap(t.Context(), m, binding)
	if err != nil {
		t.Fatalf("wrapping: %v", err)
	}
	return blob
}

// describes: the fingerprint is stable and tells keys apart; nothing that is printed is a secret.
func describes(t *testing.T, h Harness) {
	k, again, other := open(t, h.Open), open(t, h.Open), open(t, h.Other)
	if k.ID() == "" || k.ID() != again.ID() || k.ID() == other.ID() {
		t.Errorf("fingerprints: %q, the same key again %q, another key %q", k.ID(), again.ID(), other.ID())
	}
	if k.Kind() != keyring.Wraps && k.Kind() != keyring.Holds && k.Kind() != keyring.Escrow {
		t.Errorf("kind %q", k.Kind())
	}
	if scheme, rest, _ := strings.Cut(k.URL(), ":"); scheme == "" || rest == "" || k.Provider() == "" || strings.Contains(k.URL(), "@") {
		t.Errorf("URL %q, provider %q", k.URL(), k.Provider())
	}
}

// roundTrip: for every length that is wrapped anywhere; never twice to the same blob; m stays the caller's.
func roundTrip(t *testing.T, h Harness) {
	k, reopened := open(t, h.Open), open(t, h.Open)
	for _, n := range []int{16, 32, 64} {
		m := material.Random(n)
		first, second := wrap(t, k, m), wrap(t, k, m)
		if bytes.Equal(first, second) {
			t.Errorf("%d bytes: wrapped twice to the same blob", n)
		}
		if m.Len() != n || bytes.Contains(first, m.Expose()) {
			t.Errorf("%d bytes: the material was destroyed, or stands in the blob", n)
		}
		before := bytes.Clone(first)
		for name, opener := range map[string]keyring.MasterKey{"the same": k, "the key opened again": reopened} {
			out, err := opener.Unwrap(t.Context(), first, binding)
			if err != nil || !out.Equal(m) {
				t.Errorf("%d bytes, %s: unwrapping: equal %v, %v", n, name, out.Equal(m), err)
			}
			out.Destroy()
		}
		if !bytes.Equal(first, before) {
			t.Errorf("%d bytes: unwrapping changed the blob", n)
		}
	}
}

// otherBindings: each field counts by itself.
func otherBindings(t *testing.T, h Harness) {
	k := open(t, h.Open)
	blob := wrap(t, k, material.Random(32))
	for name, change := range map[string]func(*keyring.Binding){
		"tenant": func(b *keyring.Binding) { b.Tenant = "store-2" }, "kind": func(b *keyring.Binding) { b.Kind = "kek/audit" },
		"id": func(b *keyring.Binding) { b.ID = strings.Repeat("0", 32) }, "version": func(b *keyring.Binding) { b.Version-- },
		"state": func(b *keyring.Binding) { b.State = "deactivated" }, "sequence": func(b *keyring.Binding) { b.Seq-- },
		"everything": func(b *keyring.Binding) { *b = keyring.Binding{} },
		"fields run together": func(b *keyring.Binding) {
			b.Tenant, b.Kind = b.Tenant+b.Kind, ""
		},
	} {
		b := binding
		change(&b)
		refuses(t, "another "+name, k, blob, b)
	}
}

func otherKeys(t *testing.T, h Harness) {
	k, other := open(t, h.Open), open(t, h.Other)
	refuses(t, "another key's blob", k, wrap(t, other, material.Random(32)), binding)
	refuses(t, "a blob under another key", other, wrap(t, k, material.Random(32)), binding)
}

// maxAttempts bounds the changes of each sort that a provider over a network is asked about. A blob of so many bytes or
// fewer, as all known ones are, still has every byte of it changed.
const maxAttempts = 512

// changedBlobs: every bit of it counts, and so does its length. Where each attempt is a call over a network: a bit of every
// byte, and every 16th length.
func changedBlobs(t *testing.T, h Harness) {
	k := open(t, h.Open)
	blob := wrap(t, k, material.Random(32))
	step, cut := 1, 1
	if k.Kind() == keyring.Wraps {
		step = 7 // no divisor of 8: every place in a byte has its turn
		for len(blob)*8/step > maxAttempts*8/7 {
			step += 2
		}
		cut = max(16, len(blob)/maxAttempts)
	}
	for bit := 0; bit < len(blob)*8; bit += step {
		changed := bytes.Clone(blob)
		changed[bit/8] ^= 1 << (bit % 8)
		refuses(t, fmt.Sprintf("bit %d flipped", bit), k, changed, binding)
	}
	for n := 0; n < len(blob); n += cut {
		refuses(t, fmt.Sprintf("cut to %d bytes", n), k, blob[:n], binding)
	}
	refuses(t, "cut by its last byte", k, blob[:len(blob)-1], binding)
	refuses(t, "nothing", k, nil, binding)
	refuses(t, "one byte more", k, append(bytes.Clone(blob), 0), binding)
	refuses(t, "text", k, []byte("not a wrapped key"), binding)
}

func refuses(t *testing.T, what string, k keyring.MasterKey, blob []byte, b keyring.Binding) {
	t.Helper()
	m, err := k.Unwrap(t.Context(), blob, b)
	if m != nil || fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("%s: unwrapped %v with error %v, want code integrity", what, m != nil, err)
	}
}

func concurrently(t *testing.T, h Harness) {
	k := open(t, h.Open)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m := material.Random(32)
			blob, err := k.Wrap(t.Context(), m, binding)
			if err != nil {
				t.Errorf("wrapping: %v", err)
				return
			}
			out, err := k.Unwrap(t.Context(), blob, binding)
			if err != nil || !out.Equal(m) {
				t.Errorf("unwrapping: %v", err)
			}
		})
	}
	wg.Wait()
}

// cancelled: nobody is kept waiting who went away.
func cancelled(t *testing.T, h Harness) {
	k := open(t, h.Open)
	blob := wrap(t, k, material.Random(32))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Wrap(gone, material.Random(32), binding); fault.CodeOf(err) != api.CodeCancelled {
		t.Errorf("wrapping for nobody: %v", err)
	}
	if _, err := k.Unwrap(gone, blob, binding); fault.CodeOf(err) != api.CodeCancelled {
		t.Errorf("unwrapping for nobody: %v", err)
	}
}

func closes(t *testing.T, h Harness) {
	k := open(t, h.Open)
	blob := wrap(t, k, material.Random(32))
	for range 2 {
		if err := k.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if _, err := k.Wrap(t.Context(), material.Random(32), binding); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("wrapping after closing: %v", err)
	}
	if _, err := k.Unwrap(t.Context(), blob, binding); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("unwrapping after closing: %v", err)
	}
}
