package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// metaStoreID is the key under which Meta keeps Store.ID.
const metaStoreID = "store_id"

// Meta implements Tx.
func (t *txn) Meta(ctx context.Context, key string) (value string, err error) {
	err = t.one(ctx, notFound("setting"), "reading a setting of the store", []any{&value}, `SELECT value FROM meta WHERE name = $1`, key)
	return value, err
}

// SetMeta implements Tx.
func (t *txn) SetMeta(ctx context.Context, key, value string) error {
	_, err := t.exec(ctx, "writing a setting of the store",
		`INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, key, value)
	return err
}

// storeID reads the store's id, and gives it one when it is new.
func storeID(ctx context.Context, tx Tx) (string, error) {
	id, err := tx.Meta(ctx, metaStoreID)
	if fault.CodeOf(err) != api.CodeNotFound {
		return id, err
	}
	var raw [16]byte
	rand.Read(raw[:]) //nolint:errcheck // never returns an error since Go 1.24
	id = hex.EncodeToString(raw[:])
	return id, tx.SetMeta(ctx, metaStoreID, id)
}
