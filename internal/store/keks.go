package store

import (
	"context"

	"github.com/keyturn/keyturn/internal/keys"
)

func readKEK(row scanner) (k keys.KEK, err error) {
	return k, row.Scan(&k.ID, &k.Purpose, &k.Version, &k.Active, into{&k.Created})
}

// KEKs implements keys.Tx, by purpose and generation.
func (t *txn) KEKs(ctx context.Context) ([]keys.KEK, error) {
	const doing = "reading the key-encryption keys"
	list, err := all(ctx, t, doing, readKEK, `SELECT id, purpose, version, active, created FROM keks ORDER BY purpose, version`)
	if err != nil {
		return nil, err
	}
	type wrapping struct {
		of keys.KEKID
		keys.Wrapping
	}
	wrappings, err := all(ctx, t, doing, func(row scanner) (w wrapping, err error) {
		return w, row.Scan(&w.of, &w.MasterID, &w.URL, &w.Blob)
	}, `SELECT kek_id, master_id, url, wrapped FROM kek_wrappings ORDER BY kek_id, number`)
	if err != nil {
		return nil, err
	}
	place := make(map[keys.KEKID]int, len(list))
	for i, k := range list {
		place[k.ID] = i
	}
	for _, w := range wrappings { // in their order; the tables see to it that each belongs to a key of the list
		k := &list[place[w.of]]
		k.Wrappings = append(k.Wrappings, w.Wrapping)
	}
	return list, nil
}

// PutKEK implements keys.Tx. The tables refuse two active keys of one purpose: write the old one, inactive, first.
func (t *txn) PutKEK(ctx context.Context, k keys.KEK) error {
	const doing = "storing a key-encryption key"
	_, err := t.exec(ctx, doing,
		`INSERT INTO keks (id, purpose, version, active, created) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET purpose = excluded.purpose, version = excluded.version, active = excluded.active,
			created = excluded.created`,
		string(k.ID), string(k.Purpose), k.Version, k.Active, k.Created)
	if err != nil {
		return err
	}
	removed, err := t.exec(ctx, doing, `DELETE FROM kek_wrappings WHERE kek_id = $1`, string(k.ID))
	if err != nil {
		return err
	}
	t.destroyed = t.destroyed || removed > 0 // a master key that was removed must not open old pages
	for i, w := range k.Wrappings {
		if _, err := t.exec(ctx, doing,
			`INSERT INTO kek_wrappings (kek_id, number, master_id, url, wrapped) VALUES ($1, $2, $3, $4, $5)`,
			string(k.ID), i+1, w.MasterID, w.URL, w.Blob); err != nil {
			return err
		}
	}
	return nil
}
