package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/internal/keys"
)

func readKEK(row scanner) (k keys.KEK, err error) {
	return k, row.Scan(&k.ID, &k.Purpose, &k.Version, &k.Active, into{&k.Created})
}

// KEKs implements keys.Tx, by purpose and generation. Both tables are read in the order in which they lie there.
func (t *txn) KEKs(ctx context.Context) ([]keys.KEK, error) {
	const doing = "reading the key-encryption keys"
	list, err := all(ctx, t, doing, readKEK, `SELECT id, purpose, version, active, created FROM keks ORDER BY id`)
	if err != nil {
		return nil, err
	}
	var id, master, url sql.RawBytes
	var w keys.Wrapping
	of := 0 // whose wrappings are being read
	err = t.each(ctx, doing, func(rows *sql.Rows) error {
		if err := rows.Scan(&id, &master, &url, &w.Blob); err != nil {
			return t.fail(ctx, err, doing)
		}
		if w.MasterID != string(master) { // the names of a few master keys, in thousands of rows
			w.MasterID = string(master)
		}
		if w.URL != string(url) {
			w.URL = string(url)
		}
		for of < len(list) && string(list[of].ID) < string(id) {
			of++
		}
		if of < len(list) && string(list[of].ID) == string(id) { // the tables see to it
			list[of].Wrappings = append(list[of].Wrappings, w)
		}
		return nil
	}, `SELECT kek_id, master_id, url, wrapped FROM kek_wrappings ORDER BY kek_id, number`)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b keys.KEK) int {
		return cmp.Or(cmp.Compare(a.Purpose, b.Purpose), cmp.Compare(a.Version, b.Version))
	})
	return list, nil
}

// ActiveKEKs implements keys.Tx.
func (t *txn) ActiveKEKs(ctx context.Context) (map[keys.KEKPurpose]keys.KEKID, error) {
	active, err := all(ctx, t, "reading the active key-encryption keys", func(row scanner) (k keys.KEK, err error) {
		return k, row.Scan(&k.Purpose, &k.ID)
	}, `SELECT purpose, id FROM keks WHERE active`)
	if err != nil {
		return nil, err
	}
	out := make(map[keys.KEKPurpose]keys.KEKID, len(active))
	for _, k := range active {
		out[k.Purpose] = k.ID
	}
	return out, nil
}

// rowsPerStatement is how many rows one statement writes where many are written: a store may have thousands of KEKs, and a
// statement for each costs more than its row. SQLite looks for each $n among all of a statement, so more rows would cost more again.
const rowsPerStatement = 10

// PutKEKs implements keys.Tx. The tables refuse two active keys of one purpose: write the old one, inactive, first.
func (t *txn) PutKEKs(ctx context.Context, list ...keys.KEK) error {
	const doing = "storing the key-encryption keys"
	t.news = append(t.news, wordKEKs)
	for chunk := range slices.Chunk(list, rowsPerStatement) {
		var rows, ids, wrappings []any
		for _, k := range chunk {
			ids = append(ids, string(k.ID))
			rows = append(rows, string(k.ID), string(k.Purpose), k.Version, k.Active, k.Created)
			for i, w := range k.Wrappings {
				wrappings = append(wrappings, string(k.ID), i+1, w.MasterID, w.URL, w.Blob)
			}
		}
		_, err := t.exec(ctx, doing, `INSERT INTO keks (id, purpose, version, active, created) VALUES `+tuples(len(chunk), 5)+`
			ON CONFLICT (id) DO UPDATE SET purpose = excluded.purpose, version = excluded.version, active = excluded.active,
				created = excluded.created
			WHERE (keks.purpose, keks.version, keks.active, keks.created) <> (excluded.purpose, excluded.version, excluded.active, excluded.created)`, rows...)
		if err != nil {
			return err
		}
		removed, err := t.exec(ctx, doing, `DELETE FROM kek_wrappings WHERE kek_id IN `+tuples(1, len(ids)), ids...)
		if err != nil {
			return err
		}
		t.destroyed = t.destroyed || removed > 0 // a master key that was removed must not open old pages
		for w := range slices.Chunk(wrappings, rowsPerStatement*5) {
			if _, err := t.exec(ctx, doing,
				`INSERT INTO kek_wrappings (kek_id, number, master_id, url, wrapped) VALUES `+tuples(len(w)/5, 5), w...); err != nil {
				return err
			}
		}
	}
	return nil
}

// tuples is "($1, $2), ($3, $4)" for two rows of two columns.
func tuples(rows, columns int) string {
	text := make([]byte, 0, rows*columns*6)
	for i := range rows * columns {
		switch {
		case i == 0:
			text = append(text, '(')
		case i%columns == 0:
			text = append(text, "), ("...)
		default:
			text = append(text, ", "...)
		}
		text = strconv.AppendInt(append(text, '$'), int64(i)+1, 10)
	}
	return string(append(text, ')'))
}
