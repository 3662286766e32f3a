package keyring

import (
	"context"
	"crypto/hmac"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// MasterStatus is what one master key can do now.
type MasterStatus struct {
	URL, Provider string
	Kind          Kind
	ID            string
	OK            bool  // it opens every KEK of the store
	Err           error // the first reason why not
	KEKs          []KEKStatus
}

// KEKStatus is one KEK under one master key.
type KEKStatus struct {
	ID      keys.KEKID
	Purpose keys.KEKPurpose
	Version uint32
	Err     error // nil when it opens
}

// Verify opens every KEK of the store under every master key, as `doctor` and `master verify` promise: to the very key that
// is in use. It changes nothing.
func (r *Ring) Verify(ctx context.Context) []MasterStatus {
	out, _ := r.VerifyUnder(ctx, r.Masters())
	return out
}

// VerifyUnder is Verify for master keys that may be others than those in use, and lists those that are configured elsewhere.
func (r *Ring) VerifyUnder(ctx context.Context, masters []MasterKey) ([]MasterStatus, []Elsewhere) {
	records, err := r.src.KEKs(ctx)
	if err == nil && len(records) == 0 {
		err = fault.New(api.CodeNotFound, "the store has no key-encryption keys").WithNext("keyturn init")
	}
	var out []MasterStatus
	for _, master := range masters {
		s := MasterStatus{URL: master.URL(), Provider: master.Provider(), Kind: master.Kind(), ID: master.ID(), Err: err}
		s.KEKs = make([]KEKStatus, len(records))
		_ = overCores(len(records), func(i int) error {
			rec := records[i]
			s.KEKs[i] = KEKStatus{ID: rec.ID, Purpose: rec.Purpose, Version: rec.Version, Err: r.tryKEK(ctx, rec, master)}
			return nil
		})
		for _, k := range s.KEKs {
			if s.Err == nil {
				s.Err = k.Err
			}
		}
		s.OK = s.Err == nil
		out = append(out, s)
	}
	return out, elsewhere(records, masters)
}

// tryKEK opens a KEK under one master key and forgets it.
func (r *Ring) tryKEK(ctx context.Context, rec keys.KEK, master MasterKey) error {
	blob := wrappingUnder(rec, master)
	if blob == nil && master.ID() != "" { // one that could not be opened answers with its own error
		return r.notWrapped(rec, master)
	}
	m, err := master.Unwrap(ctx, blob, r.kekBinding(rec))
	if err != nil {
		return err
	}
	return r.same(rec, m, master)
}

// same says whether m is the key that is open under this id, if one is. It takes ownership of m. Whoever has a master key
// and can write to the database could otherwise put a key of his own beside the true one, and wait for its day.
func (r *Ring) same(rec keys.KEK, m *material.Bytes, master MasterKey) error {
	open := r.knownKEK(rec.ID)
	if open == nil {
		m.Destroy()
		return nil
	}
	id, err := envelope.ParseKeyID(string(rec.ID))
	if err != nil {
		m.Destroy()
		return fault.Wrap(api.CodeIntegrity, err, "reading a key-encryption key")
	}
	other, err := loadKEK(id, rec, m)
	if err != nil {
		return err
	}
	other.key.Destroy()
	if !hmac.Equal(open.print, other.print) {
		return fault.New(api.CodeIntegrity, "key-encryption key "+string(rec.ID)+" opens under "+master.URL()+" to another key than the one in use").
			WithNext("find out who writes to the database; keyturn master rotate wraps the one in use anew")
	}
	return nil
}
