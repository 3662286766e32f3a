package keyring

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
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

// Verify opens every KEK of the store under every master key, as `doctor` and `master verify` promise. It changes nothing.
func (r *Ring) Verify(ctx context.Context) []MasterStatus {
	records, err := r.src.KEKs(ctx)
	if err == nil && len(records) == 0 {
		err = fault.New(api.CodeNotFound, "the store has no key-encryption keys").WithNext("keyturn init")
	}
	var out []MasterStatus
	for _, master := range r.Masters() {
		s := MasterStatus{URL: master.URL(), Provider: master.Provider(), Kind: master.Kind(), ID: master.ID(), Err: err}
		for _, rec := range records {
			k := KEKStatus{ID: rec.ID, Purpose: rec.Purpose, Version: rec.Version, Err: r.tryKEK(ctx, rec, master)}
			s.KEKs = append(s.KEKs, k)
			if s.Err == nil {
				s.Err = k.Err
			}
		}
		s.OK = s.Err == nil
		out = append(out, s)
	}
	return out
}

// tryKEK opens a KEK under one master key and forgets it.
func (r *Ring) tryKEK(ctx context.Context, rec keys.KEK, master MasterKey) error {
	blob := wrappingUnder(rec, master)
	if _, broken := master.(*unopened); blob == nil && !broken {
		return fault.New(api.CodeNotFound, "key-encryption key "+string(rec.ID)+" was never wrapped under "+master.URL()).
			WithNext("wrap it: keyturn master rotate")
	}
	m, err := master.Unwrap(ctx, blob, r.kekBinding(rec))
	m.Destroy()
	return err
}
