package kms

import (
	"context"
	"strings"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Directory reads single rows for those who know only a contract of their own: sign-in (authn.Source) and the ring
// (keyring.Source). Each answer is a snapshot of its own.
type Directory struct{ Store store.Store }

// read runs one reading in a snapshot.
func read[T any](ctx context.Context, d Directory, get func(store.Tx) (T, error)) (out T, err error) {
	err = d.Store.View(ctx, func(tx store.Tx) (err error) {
		out, err = get(tx)
		return err
	})
	return out, err
}

// TokenByID implements authn.Source.
func (d Directory) TokenByID(ctx context.Context, id string) (access.Token, error) {
	return read(ctx, d, func(tx store.Tx) (access.Token, error) { return tx.TokenByID(ctx, id) })
}

// PrincipalByID implements authn.Source.
func (d Directory) PrincipalByID(ctx context.Context, id string) (access.Principal, error) {
	return read(ctx, d, func(tx store.Tx) (access.Principal, error) { return tx.PrincipalByID(ctx, id) })
}

// LocalAdministrator implements authn.Source: the principal that Bootstrap made.
func (d Directory) LocalAdministrator(ctx context.Context) (access.Principal, error) {
	return read(ctx, d, func(tx store.Tx) (access.Principal, error) {
		id, err := tx.Meta(ctx, metaLocalAdministrator)
		if err != nil {
			return access.Principal{}, err
		}
		return tx.PrincipalByID(ctx, id)
	})
}

// UnprovenAdministrator implements authn.Unproven: the same rows, as they stand in the store, whoever wrote them.
func (d Directory) UnprovenAdministrator(ctx context.Context) (access.Principal, error) {
	st := d.Store
	if a, ok := st.(*Attested); ok {
		st = a.Store
	}
	return read(ctx, Directory{st}, func(tx store.Tx) (access.Principal, error) {
		id, err := tx.Meta(ctx, metaLocalAdministrator)
		if err != nil {
			return access.Principal{}, err
		}
		id, _, _ = strings.Cut(id, " ") // its MAC
		return tx.PrincipalByID(ctx, id)
	})
}

// KEKs implements keyring.Source.
func (d Directory) KEKs(ctx context.Context) ([]keys.KEK, error) {
	return read(ctx, d, func(tx store.Tx) ([]keys.KEK, error) { return tx.KEKs(ctx) })
}

// KeyByID implements keyring.Source.
func (d Directory) KeyByID(ctx context.Context, id envelope.KeyID) (keys.Key, error) {
	return read(ctx, d, func(tx store.Tx) (keys.Key, error) { return tx.KeyByID(ctx, id) })
}

// KeyByName implements keyring.Source.
func (d Directory) KeyByName(ctx context.Context, name string) (keys.Key, error) {
	return read(ctx, d, func(tx store.Tx) (keys.Key, error) { return tx.KeyByName(ctx, name) })
}
