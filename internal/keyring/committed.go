package keyring

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// A blob of a provider that wraps, as it is stored; a change of it needs another third byte:
//
//	'K' 'W' 1 | commitment, 32 bytes | what the provider made
//
// The commitment is HKDF-Expand-SHA-512(m, "keyturn/v1/wrapped" 00 SHA-256(binding) SHA-256(what the provider made), 32).
// It shows nothing of m, which is a key, and is what tells a wrong answer from a right one: without it, whoever answers
// in the provider's place could hand over a key of his own, under which everything new would then be wrapped.
const (
	committedPrefix = "KW\x01"
	committedHeader = len(committedPrefix) + sha256.Size
	labelCommitted  = "keyturn/v1/wrapped\x00"
)

// maxCommitted is more than any provider makes of a key, in bytes.
const maxCommitted = 16 << 10

// Commit makes the blob that a provider over a network returns from Wrap: wrapped, what its service made of m, with a
// commitment to m and b. m is a key, of 16 bytes or more: a password could be guessed by it.
func Commit(wrapped []byte, m *material.Bytes, b Binding) ([]byte, error) {
	tag, err := commitment(wrapped, m, b)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(committedPrefix), tag...), wrapped...), nil
}

// Uncommit is the inverse for Unwrap: it has unwrap ask the service, and hands over what it answered only if it is what
// Commit was given. Errors: integrity for a blob of another form or a wrong answer; those of unwrap.
func Uncommit(blob []byte, b Binding, unwrap func(wrapped []byte) (*material.Bytes, error)) (*material.Bytes, error) {
	if len(blob) <= committedHeader || len(blob) > maxCommitted || string(blob[:len(committedPrefix)]) != committedPrefix {
		return nil, fault.New(api.CodeIntegrity, "unwrapping: this isn't what the provider wrapped")
	}
	tag, wrapped := blob[len(committedPrefix):committedHeader], blob[committedHeader:]
	m, err := unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	want, err := commitment(wrapped, m, b)
	if err == nil && !hmac.Equal(want, tag) {
		err = fault.New(api.CodeIntegrity, "unwrapping: the provider answered with another key than the one that was wrapped")
	}
	if err != nil {
		m.Destroy()
		return nil, err
	}
	return m, nil
}

func commitment(wrapped []byte, m *material.Bytes, b Binding) ([]byte, error) {
	c, err := b.Context()
	if err != nil {
		return nil, err
	}
	if m.Len() < 16 {
		return nil, fault.New(api.CodeIntegrity, "wrapping: what is wrapped is too short to be a key")
	}
	bound, made := sha256.Sum256(c), sha256.Sum256(wrapped)
	tag, err := hkdf.Expand(sha512.New, m.Expose(), labelCommitted+string(bound[:])+string(made[:]), sha256.Size)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "committing to a wrapped key")
	}
	return tag, nil
}
