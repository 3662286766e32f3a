package keyring

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// unwrapRef names one unwrapping. Like every key of the caches it is a struct, so that no two things are ever spelled the
// same (ADVISORIES row 79).
type unwrapRef struct {
	generation uint64
	id         envelope.KeyID
	number     uint32
	seq        uint32
}

// Fill gives version n of k new random material, wrapped and bound to the state in which the version stands. It changes
// k, which must be the caller's own (keys.Key.Clone). A version that has material is refused: nothing is overwritten.
func (r *Ring) Fill(ctx context.Context, k *keys.Key, n uint32) error {
	return r.FillWith(ctx, k, n, material.Random(envelope.KeySize))
}

// FillWith is Fill with material that came from elsewhere, as an import has it. It takes ownership of m.
func (r *Ring) FillWith(_ context.Context, k *keys.Key, n uint32, m *material.Bytes) error {
	defer m.Destroy()
	v, err := versionOf(k, n)
	switch {
	case err != nil:
		return err
	case v.Wrapped != nil || v.State == keys.Destroyed:
		return fault.Newf(api.CodeWrongState, "filling version %d of key %s: it has or had material already", n, k.Name)
	case m.Len() != envelope.KeySize:
		return fault.Newf(api.CodeInvalid, "filling version %d of key %s: the material must be %d bytes", n, k.Name, envelope.KeySize).
			WithField("material")
	}
	return r.wrapVersion(k, v, m)
}

// Bind wraps version n of k anew for the state in which it stands now; from is the version as it was before, whose
// material is taken. It also moves the material under the active KEK, so binding a version to the state that it is in
// is how a KEK's rotation reaches it. A destroyed version just loses its material. It changes k; nothing but memory is
// asked, unless another node made the KEK moments ago, so it may run inside a transaction.
func (r *Ring) Bind(ctx context.Context, k *keys.Key, n uint32, from keys.Version) error {
	v, err := versionOf(k, n)
	if err != nil {
		return err
	}
	if v.State == keys.Destroyed {
		v.Wrapped, v.KEK = nil, ""
		return nil
	}
	m, err := r.unwrapVersion(ctx, k, from)
	if err != nil {
		return err
	}
	defer m.Destroy()
	return r.wrapVersion(k, v, m)
}

// Version is the key that seals and opens under version n of k. It is unwrapped at the first use and cached. The caller
// has asked k whether the state allows what it is about to do; a destroyed version is refused here too.
func (r *Ring) Version(ctx context.Context, k *keys.Key, n uint32) (*envelope.Key, error) {
	v, err := versionOf(k, n)
	if err == nil {
		err = r.Usable()
	}
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	cached, ok := r.versions[k.ID][n]
	ref := unwrapRef{r.generation, k.ID, n, v.Seq}
	r.mu.RUnlock()
	if ok && cached.seq == v.Seq && len(v.Wrapped) > 0 {
		return cached.key, nil
	}
	return r.unwrapOnce(ctx, k, *v, ref)
}

// unwrapOnce is the slow half of Version.
func (r *Ring) unwrapOnce(ctx context.Context, k *keys.Key, v keys.Version, ref unwrapRef) (*envelope.Key, error) {
	return r.unwraps.do(ctx, ref, func(ctx context.Context) (*envelope.Key, error) {
		key, err := r.loadVersion(ctx, k, v)
		if err == nil {
			r.keepVersion(ref, key)
		}
		return key, err
	})
}

// Export is the raw material of version n of k, for a caller who may have it; the result is the caller's to destroy.
func (r *Ring) Export(ctx context.Context, k *keys.Key, n uint32) (*material.Bytes, error) {
	v, err := versionOf(k, n)
	if err != nil {
		return nil, err
	}
	return r.unwrapVersion(ctx, k, *v)
}

func (r *Ring) loadVersion(ctx context.Context, k *keys.Key, v keys.Version) (key *envelope.Key, err error) {
	material.Secretly(func() {
		var m *material.Bytes
		if m, err = r.unwrapVersion(ctx, k, v); err == nil {
			key, err = envelope.NewKey(k.ID, v.Number, k.Suite, string(k.Purpose), m)
		}
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

// keepVersion caches an unwrapped version, unless something was dropped since. A full cache lets go of whole keys.
func (r *Ring) keepVersion(ref unwrapRef, key *envelope.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != ref.generation {
		return
	}
	for id := range r.versions {
		if r.unwrapped < maxVersions {
			break
		}
		r.unwrapped -= len(r.versions[id])
		delete(r.versions, id)
	}
	of := r.versions[ref.id]
	if of == nil {
		of = map[uint32]unwrapped{}
		r.versions[ref.id] = of
	}
	if _, ok := of[ref.number]; !ok {
		r.unwrapped++
	}
	of[ref.number] = unwrapped{key, ref.seq}
}

// unwrapVersion opens a version's material under the binding of the state that the version says it is in: a row whose
// state, number or sequence was changed in the store doesn't open.
func (r *Ring) unwrapVersion(ctx context.Context, k *keys.Key, v keys.Version) (*material.Bytes, error) {
	if v.State == keys.Destroyed || len(v.Wrapped) == 0 {
		return nil, fault.Newf(api.CodeWrongState, "version %d of key %s has no material: it is %s", v.Number, k.Name, v.State)
	}
	kek, err := r.kek(ctx, v.KEK)
	if err != nil {
		return nil, fault.Wrapf("", err, "unwrapping version %d of key %s", v.Number, k.Name)
	}
	c, err := r.versionBinding(k, v).Context()
	if err != nil {
		return nil, err
	}
	if kek.purpose != keys.KEKData {
		return nil, fault.Newf(api.CodeIntegrity, "unwrapping version %d of key %s: it stands under a key-encryption key for %s", v.Number, k.Name, kek.purpose)
	}
	out, err := kek.key.Open(make([]byte, 0, envelope.KeySize), v.Wrapped, c)
	if err != nil {
		return nil, fault.Wrapf("", err, "unwrapping version %d of key %s", v.Number, k.Name).
			WithNext("its row in the store was changed or put back; restore the store from a backup")
	}
	return material.New(out), nil
}

func (r *Ring) wrapVersion(k *keys.Key, v *keys.Version, m *material.Bytes) error {
	kek, err := r.activeKEK(keys.KEKData)
	if err != nil {
		return fault.Wrapf("", err, "wrapping version %d of key %s", v.Number, k.Name)
	}
	c, err := r.versionBinding(k, *v).Context()
	if err != nil {
		return err
	}
	blob, err := kek.key.Seal(nil, m.Expose(), c)
	if err != nil {
		return fault.Wrapf("", err, "wrapping version %d of key %s", v.Number, k.Name)
	}
	v.KEK, v.Wrapped = kek.id, blob
	return nil
}

func (r *Ring) versionBinding(k *keys.Key, v keys.Version) Binding {
	return Binding{Tenant: r.tenant, Kind: "key-version", ID: k.ID.String(), Version: v.Number, State: string(v.State), Seq: v.Seq}
}

// versionOf points into k at version n.
func versionOf(k *keys.Key, n uint32) (*keys.Version, error) {
	if n == 0 || uint64(n) > uint64(len(k.Versions)) || k.Versions[n-1].Number != n {
		return nil, fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, n).WithField("version")
	}
	return &k.Versions[n-1], nil
}
