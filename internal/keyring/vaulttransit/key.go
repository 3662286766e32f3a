package vaulttransit

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/material"
)

// key is one Transit key. The client guards itself; nothing else changes after Open.
type key struct {
	url, id, mount, name string
	client               *vault.Client
}

func (k *key) URL() string        { return k.url }
func (k *key) Provider() string   { return scheme }
func (k *key) Kind() keyring.Kind { return keyring.Wraps }
func (k *key) ID() string         { return k.id }
func (k *key) Close() error       { return k.client.Close() }

// Wrap has Vault encrypt m. The blob is Vault's own text, under a commitment to m: see keyring.Commit.
func (k *key) Wrap(ctx context.Context, m *material.Bytes, b keyring.Binding) ([]byte, error) {
	body, err := k.body(`{"plaintext":"`, func(dst []byte) []byte { return keyring.AppendText(dst, m) }, b)
	if err != nil {
		return nil, err
	}
	answer, err := k.client.Write(ctx, k.mount+"/encrypt/"+k.name, body)
	if err != nil {
		return nil, fault.Wrap("", err, "wrapping under master key "+k.url)
	}
	var a struct{ Data struct{ Ciphertext string } }
	if json.Unmarshal(answer, &a) != nil {
		return nil, k.odd("wrapping")
	}
	if _, ok := wrapping([]byte(a.Data.Ciphertext)); !ok {
		return nil, k.odd("wrapping")
	}
	return keyring.Commit([]byte(a.Data.Ciphertext), m, b)
}

// Unwrap has Vault decrypt a blob. Vault refuses changed ones, other keys' and other bindings' all with status 400, as it does
// a version that the key's min_decryption_version forbids: only then the key is looked at to tell these apart.
func (k *key) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap("", err, "unwrapping under master key "+k.url)
	}
	m, err := keyring.Uncommit(blob, b, func(wrapped []byte) (*material.Bytes, error) {
		version, ok := wrapping(wrapped)
		if !ok {
			return nil, k.foreign()
		}
		m, err := k.decrypt(ctx, wrapped, b)
		if fault.CodeOf(err) == api.CodeInvalid {
			return nil, k.refused(ctx, version)
		}
		return m, err
	})
	if err != nil {
		return nil, fault.Wrap("", err, "unwrapping under master key "+k.url)
	}
	return m, nil
}

// decrypt asks Vault. Its refusal is of code invalid.
func (k *key) decrypt(ctx context.Context, wrapped []byte, b keyring.Binding) (*material.Bytes, error) {
	body, err := k.body(`{"ciphertext":"`, func(dst []byte) []byte { return append(dst, wrapped...) }, b)
	if err != nil {
		return nil, err
	}
	answer, err := k.client.Write(ctx, k.mount+"/decrypt/"+k.name, body)
	if err != nil {
		return nil, err
	}
	defer clear(answer)
	var a struct{ Data struct{ Plaintext []byte } }
	if json.Unmarshal(answer, &a) != nil || len(a.Data.Plaintext) == 0 {
		clear(a.Data.Plaintext)
		return nil, k.odd("decrypting")
	}
	return material.New(a.Data.Plaintext), nil
}

// body is what Vault is sent: a field that value appends, and the binding. Everything in it is base64 or a checked wrapping, so
// nothing needs escaping. The client wipes it.
func (k *key) body(start string, value func([]byte) []byte, b keyring.Binding) ([]byte, error) {
	bound, err := json.Marshal(b.Map()) // names in order: one text for one binding
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "binding a wrapping")
	}
	body := make([]byte, 0, maxWrapping+2*len(bound)+256) // enough not to grow, which would leave a copy behind
	body = value(append(body, start...))
	body = append(body, `","associated_data":"`...)
	return append(base64.StdEncoding.AppendEncode(body, bound), `"}`...), nil
}

// refused says why Vault wouldn't decrypt a wrapping of this version.
func (k *key) refused(ctx context.Context, version uint64) error {
	about, err := k.describe(ctx)
	if err != nil {
		return err
	}
	if version < about.MinDecryptionVersion {
		return fault.Newf(api.CodeWrongState, "it was wrapped by version %d of the Transit key, which decrypts from version %d only", version, about.MinDecryptionVersion).
			WithNext("lower min_decryption_version of the Transit key, run keyturn master rotate, and raise it again")
	}
	return k.foreign()
}

func (k *key) foreign() error {
	return fault.New(api.CodeIntegrity, "the wrapping was changed, or belongs to another key or place")
}

func (k *key) odd(doing string) error {
	return fault.New(api.CodeUnavailable, doing+" in Vault: it answered something else than it should")
}
