package keyring

import (
	"context"
	"encoding/hex"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// Purposes in the derivations of a held master key; part of the format of stored wrappings.
const (
	purposeMaster      = "keyturn/master"
	purposeFingerprint = "keyturn/master-fingerprint"
)

// held is a master key whose 32 bytes came to us: it wraps by suite 1, under its own fingerprint as key id.
type held struct {
	url, provider string
	id            envelope.KeyID
	key           *envelope.Key
}

// Hold makes a master key of 32 bytes that a provider handed over. It takes ownership of m. The URL must be canonical and
// safe to print. Errors: invalid when m isn't 32 bytes.
func Hold(url, provider string, m *material.Bytes) (MasterKey, error) {
	defer m.Destroy()
	if m.Len() != envelope.KeySize {
		return nil, fault.Newf(api.CodeInvalid, "holding a master key: it must be %d bytes", envelope.KeySize)
	}
	id, err := fingerprint(m)
	if err != nil {
		return nil, err
	}
	key, err := envelope.NewKey(id, 1, envelope.SuiteStandard, purposeMaster, m.Clone())
	if err != nil {
		return nil, fault.Wrap("", err, "holding a master key")
	}
	return &held{url: url, provider: provider, id: id, key: key}, nil
}

// fingerprint derives 16 public bytes from a key. The key id below only separates this derivation from others.
func fingerprint(m *material.Bytes) (id envelope.KeyID, err error) {
	key, err := envelope.NewKey(envelope.KeyID([]byte("keyturn/mk-print")), 1, envelope.SuiteStandard, purposeFingerprint, m.Clone())
	if err != nil {
		return id, fault.Wrap("", err, "fingerprinting a master key")
	}
	defer key.Destroy()
	derived, err := key.AppendDerived(id[:0], "fingerprint", nil, len(id))
	if err != nil {
		return id, fault.Wrap("", err, "fingerprinting a master key")
	}
	return envelope.KeyID(derived), nil
}

func (h *held) URL() string      { return h.url }
func (h *held) Provider() string { return h.provider }
func (h *held) Kind() Kind       { return Holds }
func (h *held) ID() string       { return hex.EncodeToString(h.id[:]) }

// Close forgets the key.
func (h *held) Close() error {
	h.key.Destroy()
	return nil
}

func (h *held) Wrap(ctx context.Context, m *material.Bytes, b Binding) ([]byte, error) {
	c, err := bound(ctx, b)
	if err != nil {
		return nil, err
	}
	blob, err := h.key.Seal(nil, m.Expose(), c)
	if err != nil {
		return nil, fault.Wrap("", err, "wrapping under master key "+h.url)
	}
	return blob, nil
}

func (h *held) Unwrap(ctx context.Context, blob []byte, b Binding) (*material.Bytes, error) {
	c, err := bound(ctx, b)
	if err != nil {
		return nil, err
	}
	out, err := h.key.Open(nil, blob, c)
	if err != nil {
		return nil, fault.Wrap("", err, "unwrapping under master key "+h.url)
	}
	return material.New(out), nil
}

// bound is the context of a binding, unless nobody waits for the answer any more.
func bound(ctx context.Context, b Binding) (envelope.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap("", err, "using a master key")
	}
	return b.Context()
}
