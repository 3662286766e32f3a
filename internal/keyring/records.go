package keyring

import (
	"context"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// Seal wraps a small record of the store (a connection string, the audit log's keys) under the active KEK of a purpose.
// The binding's tenant is filled in.
func (r *Ring) Seal(_ context.Context, purpose keys.KEKPurpose, b Binding, plaintext []byte) ([]byte, error) {
	kek, err := r.activeKEK(purpose)
	if err != nil {
		return nil, fault.Wrap("", err, "sealing a "+b.Kind)
	}
	b.Tenant = r.tenant
	c, err := b.Context()
	if err != nil {
		return nil, err
	}
	blob, err := kek.key.Seal(nil, plaintext, c)
	if err != nil {
		return nil, fault.Wrap("", err, "sealing a "+b.Kind)
	}
	return blob, nil
}

// Unseal opens what Seal made, under whichever generation of the purpose's KEK it stands. Errors: integrity for a record
// that was changed or belongs to another binding or purpose.
func (r *Ring) Unseal(ctx context.Context, purpose keys.KEKPurpose, b Binding, blob []byte) ([]byte, error) {
	info, err := envelope.Inspect(blob)
	if err != nil {
		return nil, fault.Wrap("", err, "unsealing a "+b.Kind)
	}
	kek, err := r.kek(ctx, keys.KEKID(info.KeyID.String()))
	if err != nil {
		return nil, fault.Wrap("", err, "unsealing a "+b.Kind)
	}
	if kek.purpose != purpose {
		return nil, fault.Newf(api.CodeIntegrity, "unsealing a %s: it stands under a key-encryption key for %s", b.Kind, kek.purpose)
	}
	b.Tenant = r.tenant
	c, err := b.Context()
	if err != nil {
		return nil, err
	}
	out, err := kek.key.Open(nil, blob, c)
	if err != nil {
		return nil, fault.Wrap("", err, "unsealing a "+b.Kind)
	}
	return out, nil
}

// plaintexts are buffers for Rewrap; they hold zeroes while nobody uses them.
var plaintexts = sync.Pool{New: func() any { return new([]byte) }}

// Rewrap appends to dst what blob seals, sealed again: from opens, to seals, and the plaintext stays in a buffer that is
// wiped. Both use the same context, which must be the one that blob was sealed with: a ciphertext can't be given another
// (row 63). Errors are those of Open and Seal.
func Rewrap(dst []byte, from, to *envelope.Key, blob []byte, c envelope.Context) ([]byte, error) {
	buf := plaintexts.Get().(*[]byte)
	plain, err := from.Open((*buf)[:0], blob, c)
	if err != nil {
		plaintexts.Put(buf)
		return nil, err
	}
	out, err := to.Seal(dst, plain, c)
	clear(plain)
	*buf = plain[:0]
	plaintexts.Put(buf)
	return out, err
}

// DataKey makes a random data key of n bytes (16 to 64) and seals it under key and c. The clear one is the caller's to
// hand over (AppendText) and to destroy; Open of the blob gives it back.
func DataKey(key *envelope.Key, c envelope.Context, n int) (clear *material.Bytes, blob []byte, err error) {
	if n < 16 || n > 64 {
		return nil, nil, fault.New(api.CodeInvalid, "making a data key: its length must be 16 to 64 bytes").WithField("bytes")
	}
	m := material.Random(n)
	if blob, err = key.Seal(nil, m.Expose(), c); err != nil {
		m.Destroy()
		return nil, nil, err
	}
	return m, blob, nil
}
