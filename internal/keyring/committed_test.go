package keyring_test

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// A blob as it stands in stores; never to be regenerated.
const frozenCommitted = "4b5701088d6d2b4fd52e03d12ffaf0fc8c411502753f5c70a93865eb6105b577ff7f246d61646520627920612070726f7669646572"

var committedBinding = keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 3, State: "active", Seq: 7}

// P4: a commitment that was stored once keeps being the right one.
func TestFrozenCommitment(t *testing.T) {
	m := material.New([]byte("a key-encryption key, thirty-two"))
	blob, err := keyring.Commit([]byte("made by a provider"), m, committedBinding)
	if err != nil || !bytes.Equal(blob, unhex(t, frozenCommitted)) {
		t.Errorf("%x, %v", blob, err)
	}
}

// Only what was wrapped comes out: whatever changes in the blob, the binding or the provider's answer is found out.
func TestCommitted(t *testing.T) {
	m := material.Random(32)
	made := []byte("made by a provider")
	blob, err := keyring.Commit(made, m, committedBinding)
	if err != nil {
		t.Fatal(err)
	}
	answers := func(m *material.Bytes) func([]byte) (*material.Bytes, error) {
		return func([]byte) (*material.Bytes, error) { return m.Clone(), nil }
	}
	asked := func(wrapped []byte) (*material.Bytes, error) {
		if !bytes.Equal(wrapped, made) {
			t.Errorf("the provider was asked about %q", wrapped)
		}
		return m.Clone(), nil
	}
	if out, err := keyring.Uncommit(blob, committedBinding, asked); err != nil || !out.Equal(m) {
		t.Errorf("what was committed to: %v", err)
	}
	refused := func(what string, blob []byte, b keyring.Binding, answer *material.Bytes) {
		t.Helper()
		if out, err := keyring.Uncommit(blob, b, answers(answer)); out != nil || fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v, %v", what, out != nil, err)
		}
	}
	for bit := range len(blob) * 8 {
		changed := bytes.Clone(blob)
		changed[bit/8] ^= 1 << (bit % 8)
		refused("a bit of the blob", changed, committedBinding, m)
	}
	for n := range blob {
		refused("a shorter blob", blob[:n], committedBinding, m)
	}
	refused("a longer blob", append(bytes.Clone(blob), 0), committedBinding, m)
	refused("a blob of enormous size", append(bytes.Clone(blob), make([]byte, 1<<20)...), committedBinding, m)
	refused("another key", blob, committedBinding, material.Random(32))
	refused("a shorter key", blob, committedBinding, material.Random(8))
	refused("no key", blob, committedBinding, material.New(nil))
	other := committedBinding
	other.Seq++
	refused("another binding", blob, other, m)
	if _, err := keyring.Commit(made, material.Random(15), committedBinding); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("committing to what could be guessed: %v", err)
	}
	denied := fault.New(api.CodeDenied, "asking")
	if _, err := keyring.Uncommit(blob, committedBinding, func([]byte) (*material.Bytes, error) { return nil, denied }); err != denied {
		t.Errorf("the provider's own error: %v", err)
	}
}
