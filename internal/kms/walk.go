package kms

import (
	"context"

	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// pageOfKeys is how many keys are read at once where all are walked.
const pageOfKeys = 500

// eachKey walks all keys in name order.
func eachKey(ctx context.Context, tx store.Tx, do func(keys.Key) error) error {
	return eachKeyAfter(ctx, tx, "", pageOfKeys, do)
}

// eachKeyAfter walks the keys whose names are greater than after, a page at a time, until do returns an error.
func eachKeyAfter(ctx context.Context, tx store.Tx, after string, page int, do func(keys.Key) error) error {
	for {
		list, err := tx.Keys(ctx, after, page)
		if err != nil {
			return err
		}
		for _, k := range list {
			if err := do(k); err != nil {
				return err
			}
			after = k.Name
		}
		if len(list) < page {
			return nil
		}
	}
}
