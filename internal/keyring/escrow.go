package keyring

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// EscrowURL is the only URL of an escrow key: a store has one, and no URL says where people keep their shares.
const EscrowURL = "escrow://"

// bringShares is the next step of a store that only its escrow key can open.
const bringShares = "bring the shares together: keyturn escrow combine --share-file FILE … --out FILE, then name that file in the place of the lost master key: file:///FILE"

// EscrowSet is a new escrow key as it is kept: Sealed in the store, Shares with people.
type EscrowSet struct {
	Set    string // the key's fingerprint
	Sealed []byte // the key under the KEK for recovery, bound to Set
	Shares []EscrowShare
}

// Destroy wipes the shares.
func (e EscrowSet) Destroy() {
	for _, s := range e.Shares {
		s.Destroy()
	}
}

// NewEscrow makes a random escrow key, attaches it to a, splits and seals it. Nothing is stored: RewrapKEKs with a among
// the masters follows, then one transaction with both, then Use.
func (r *Ring) NewEscrow(ctx context.Context, a Attacher, threshold, total int) (EscrowSet, error) {
	m := material.Random(envelope.KeySize)
	defer m.Destroy()
	shares, err := SplitKey(m, threshold, total)
	if err != nil {
		return EscrowSet{}, err
	}
	e := EscrowSet{Set: shares[0].Set, Shares: shares}
	if e.Sealed, err = r.Seal(ctx, keys.KEKRecovery, escrowBinding(e.Set), m.Expose()); err == nil {
		err = a.Attach(m.Clone())
	}
	if err != nil {
		e.Destroy()
		return EscrowSet{}, err
	}
	return e, nil
}

// Attach gives a its key out of the store's sealed record, provided that it is the key of that set and opens every KEK of
// the store to the very key that is in use. The second is what keeps somebody who has an old KEK and can write to the
// database from having the store wrap its new KEKs under a key that he chose: he can't wrap what he doesn't have.
//
// The ring must be open. On an error a keeps what it had.
func (r *Ring) Attach(ctx context.Context, a Attacher, set string, sealed []byte) error {
	raw, err := r.Unseal(ctx, keys.KEKRecovery, escrowBinding(set), sealed)
	if err != nil {
		return err
	}
	m := material.New(raw)
	defer m.Destroy()
	if id, err := fingerprintOf(m); err != nil || id != set {
		return fault.New(api.CodeIntegrity, "opening the escrow key: it isn't the one of its set").WithNext(freshShares)
	}
	if a.ID() == set {
		return nil // proven when it was attached
	}
	held, err := Hold(a.URL(), a.Provider(), m.Clone())
	if err != nil {
		return err
	}
	defer held.Close()
	if err := r.proves(ctx, held); err != nil {
		return fault.Wrap("", err, "proving the escrow key").WithNext(freshShares)
	}
	return a.Attach(m.Clone())
}

const freshShares = "make new shares: keyturn escrow split"

// proves opens every KEK of the store under master, each to the key that is in use.
func (r *Ring) proves(ctx context.Context, master MasterKey) error {
	records, err := r.src.KEKs(ctx)
	if err != nil {
		return fault.Wrap("", err, "reading the key-encryption keys")
	}
	for _, rec := range records {
		if _, err := r.kek(ctx, rec.ID); err != nil { // opens it if another node has just made it
			return err
		}
		if err := r.tryKEK(ctx, rec, master); err != nil {
			return err
		}
	}
	return nil
}

// SealedUnderActive says whether a sealed record stands under the active KEK of a purpose, not under one before it.
func (r *Ring) SealedUnderActive(purpose keys.KEKPurpose, sealed []byte) bool {
	info, err := envelope.Inspect(sealed)
	if err != nil {
		return false
	}
	active, err := r.activeKEK(purpose)
	return err == nil && string(active.id) == info.KeyID.String()
}

// escrowBinding is what the sealed key of a set is bound to.
func escrowBinding(set string) Binding {
	return Binding{Kind: "escrow-key", ID: set, Version: 1}
}

// joined is two next steps as one.
func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; or " + b
}
