package keyring

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// labelFingerprint separates the keys of fingerprints from everything else that is derived from a KEK.
const labelFingerprint = "keyturn/v1/row-fingerprint"

// Fingerprints turns rows' MACs into numbers that can be added up: HMAC-SHA-256 under a key that HKDF-Expand-SHA-512 derives from
// the KEK that the MAC names, for this store. A sum of them is a multiset hash (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003), which stays one only
// as long as neither the numbers nor their sums are known: whoever sees enough of them finds others with the same sum.
// So they stay in memory, and sums are kept sealed. One goroutine at a time; Wipe at the end.
type Fingerprints struct {
	ring    *Ring
	purpose keys.KEKPurpose
	keys    map[keys.KEKID][]byte
}

// Fingerprints begins a series of them, for MACs that Ring.MAC made for the purpose.
func (r *Ring) Fingerprints(purpose keys.KEKPurpose) *Fingerprints {
	return &Fingerprints{ring: r, purpose: purpose, keys: map[keys.KEKID][]byte{}}
}

// Of is the number of a row, big-endian. Errors: integrity for a MAC that none of this store's KEKs of the purpose can have made.
func (f *Fingerprints) Of(ctx context.Context, table, row, mac string) (out [sha256.Size]byte, err error) {
	id, _, ok := strings.Cut(mac, ":")
	if !ok {
		return out, errMAC
	}
	key := f.keys[keys.KEKID(id)]
	if key == nil {
		if key, err = f.derive(ctx, keys.KEKID(id)); err != nil {
			return out, err
		}
		f.keys[keys.KEKID(id)] = key
	}
	h := hmac.New(sha256.New, key)
	for _, part := range [...]string{table, "\x00", row, "\x00", mac} { // tables and MACs hold no zero byte, so the parts can't be shifted
		h.Write([]byte(part))
	}
	h.Sum(out[:0])
	return out, nil
}

func (f *Fingerprints) derive(ctx context.Context, id keys.KEKID) ([]byte, error) {
	kek, err := f.ring.kek(ctx, id)
	if err != nil {
		return nil, err
	}
	if kek.purpose != f.purpose {
		return nil, errMAC
	}
	c, err := Binding{Tenant: f.ring.tenant, Kind: "row-fingerprint"}.Context()
	if err != nil {
		return nil, err
	}
	key, err := kek.key.AppendDerived(nil, labelFingerprint, c, sha256.Size)
	if err != nil {
		return nil, fault.Wrap("", err, "adding up rows of the store")
	}
	return key, nil
}

// Wipe forgets the derived keys.
func (f *Fingerprints) Wipe() {
	for _, k := range f.keys {
		clear(k)
	}
	clear(f.keys)
}
