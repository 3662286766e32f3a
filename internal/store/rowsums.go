package store

import (
	"context"
	"database/sql"
	"time"
)

// RowSum is what the rows of one bucket add up to. What a bucket is, and what is added, is package kms's; here it is a row whose
// number only grows.
type RowSum struct {
	Bucket int
	Seq    uint64 // how often it was written, from 1
	Sealed []byte
}

// RowSums implements Tx.
func (t *txn) RowSums(ctx context.Context) ([]RowSum, error) {
	return all(ctx, t, "reading the sums of rows", readRowSum, `SELECT bucket, seq, sealed FROM row_sums ORDER BY bucket`)
}

// RowSum implements Tx.
func (t *txn) RowSum(ctx context.Context, bucket int) (RowSum, error) {
	return single(ctx, t, notFound("sum of rows"), "reading a sum of rows", readRowSum, `SELECT bucket, seq, sealed FROM row_sums WHERE bucket = $1`, bucket)
}

func readRowSum(row scanner) (s RowSum, err error) {
	return s, row.Scan(&s.Bucket, &s.Seq, &s.Sealed)
}

// PutRowSum implements Tx. It doesn't read what it replaces: the transaction has.
func (t *txn) PutRowSum(ctx context.Context, s RowSum) error {
	_, err := t.exec(ctx, "writing a sum of rows",
		`INSERT INTO row_sums (bucket, seq, sealed) VALUES ($1, $2, $3)
		ON CONFLICT (bucket) DO UPDATE SET seq = excluded.seq, sealed = excluded.sealed`, s.Bucket, s.Seq, s.Sealed)
	return err
}

// SignedRow is a row that carries a MAC: its table, what it is found by, what people know it by, and the MAC.
type SignedRow struct{ Table, ID, Name, MAC string }

// signedTables lists the tables whose rows carry a MAC in a column of that name, with the columns of a SignedRow.
var signedTables = []struct{ name, columns string }{
	{"keys", `id, name, mac`},
	{"principals", `id, name, mac`},
	{"tokens", `id, id, mac`},
	{"policies", `name, name, mac`},
	{"incidents", `id, id, mac`},
	{"incident_entries", `incident_id || '/' || CAST(number AS TEXT), incident_id, mac`},
}

// EachSignedRow implements Tx.
func (t *txn) EachSignedRow(ctx context.Context, fn func(SignedRow) error) error {
	for _, table := range signedTables {
		err := t.each(ctx, "walking the signed rows", func(rows *sql.Rows) error {
			r := SignedRow{Table: table.name}
			var id []byte
			if err := rows.Scan(&id, &r.Name, &r.MAC); err != nil {
				return t.fail(ctx, err, "walking the signed rows")
			}
			r.ID = string(id)
			return fn(r)
		}, `SELECT `+table.columns+` FROM `+table.name)
		if err != nil {
			return err
		}
	}
	return nil
}

// SumsKept implements Tx.
func (t *txn) SumsKept(ctx context.Context, now time.Time) (bool, error) {
	var others int
	err := t.one(ctx, nil, "looking which nodes keep sums of rows", []any{&others},
		`SELECT count(*) FROM audit_shards WHERE lease_until > $1 AND sums_epoch <> epoch`, now)
	return others == 0, err
}
