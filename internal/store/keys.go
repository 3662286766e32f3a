package store

import (
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
)

const keyColumns = `id, name, purpose, algorithm, suite, period, warn, max_operations, max_bytes, suspended_decrypts, created, revision, mac, by_policy`

func readKey(row scanner) (k keys.Key, err error) {
	var period, warn int64
	err = row.Scan(fixed{k.ID[:]}, &k.Name, &k.Purpose, &k.Algorithm, &k.Suite, &period, &warn,
		&k.Cryptoperiod.MaxOperations, &k.Cryptoperiod.MaxBytes, &k.SuspendedDecrypts, into{&k.Created}, &k.Revision, &k.MAC, &k.ByPolicy)
	k.Cryptoperiod.Period = time.Duration(period) * time.Microsecond
	k.Cryptoperiod.Warn = time.Duration(warn) * time.Microsecond
	return k, err
}

// CreateKey implements keys.Tx. The stored revision is 1, whatever k says.
func (t *txn) CreateKey(ctx context.Context, k keys.Key) error {
	err := t.mustChange(ctx, taken("key"), "creating a key",
		`INSERT INTO keys (`+keyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $13) ON CONFLICT DO NOTHING`,
		k.ID[:], k.Name, string(k.Purpose), string(k.Algorithm), int64(k.Suite),
		k.Cryptoperiod.Period.Microseconds(), k.Cryptoperiod.Warn.Microseconds(),
		k.Cryptoperiod.MaxOperations, k.Cryptoperiod.MaxBytes, k.SuspendedDecrypts, k.Created, k.MAC, k.ByPolicy)
	if err != nil {
		return err
	}
	return t.putVersions(ctx, k, nil)
}

// KeyByName implements keys.Tx.
func (t *txn) KeyByName(ctx context.Context, name string) (keys.Key, error) {
	return t.key(ctx, `name = $1`, name)
}

// KeyByID implements keys.Tx.
func (t *txn) KeyByID(ctx context.Context, id envelope.KeyID) (keys.Key, error) {
	return t.key(ctx, `id = $1`, id[:])
}

func (t *txn) key(ctx context.Context, where string, arg any) (keys.Key, error) {
	k, err := single(ctx, t, notFound("key"), "reading a key", readKey, `SELECT `+keyColumns+` FROM keys WHERE `+where, arg)
	if err != nil {
		return keys.Key{}, err
	}
	k.Versions, err = t.versions(ctx, k.ID)
	return k, err
}

// Keys implements keys.Tx: two statements however many keys the page has.
func (t *txn) Keys(ctx context.Context, after string, limit int) ([]keys.Key, error) {
	const doing = "listing keys"
	const page = ` FROM keys WHERE name > $1 ORDER BY name LIMIT $2`
	list, err := all(ctx, t, doing, readKey, `SELECT `+keyColumns+page, after, limit)
	if err != nil {
		return nil, err
	}
	versions, err := all(ctx, t, doing, readVersion,
		`SELECT `+versionColumns+` FROM key_versions WHERE key_id IN (SELECT id`+page+`) ORDER BY key_id, number`, after, limit)
	if err != nil {
		return nil, err
	}
	place := make(map[envelope.KeyID]int, len(list))
	for i, k := range list {
		place[k.ID] = i
	}
	for _, v := range versions {
		k := &list[place[v.key]]
		k.Versions = append(k.Versions, v.Version)
	}
	return list, nil
}

// CountKeys implements keys.Tx.
func (t *txn) CountKeys(ctx context.Context) (n int, states map[keys.State]int, err error) {
	const doing = "counting keys"
	if err := t.one(ctx, nil, doing, []any{&n}, `SELECT count(*) FROM keys`); err != nil {
		return 0, nil, err
	}
	states, err = countBy[keys.State](ctx, t, doing, `SELECT state, count(*) FROM key_versions GROUP BY state`)
	return n, states, err
}

// countBy reads rows of a name and a number.
func countBy[S ~string](ctx context.Context, t *txn, doing, query string) (map[S]int, error) {
	type count struct {
		of S
		n  int
	}
	counts, err := all(ctx, t, doing, func(row scanner) (c count, err error) { return c, row.Scan(&c.of, &c.n) }, query)
	if err != nil {
		return nil, err
	}
	out := make(map[S]int, len(counts))
	for _, c := range counts {
		out[c.of] = c.n
	}
	return out, nil
}

// UpdateKey implements keys.Tx. The row of the key is written first: its revision orders those who change one key.
func (t *txn) UpdateKey(ctx context.Context, k keys.Key) error {
	err := t.mustChange(ctx, stale("key"), "changing a key",
		`UPDATE keys SET name = $3, purpose = $4, algorithm = $5, suite = $6, period = $7, warn = $8,
			max_operations = $9, max_bytes = $10, suspended_decrypts = $11, mac = $12, by_policy = $13, revision = revision + 1
		WHERE id = $1 AND revision = $2`,
		k.ID[:], k.Revision, k.Name, string(k.Purpose), string(k.Algorithm), int64(k.Suite),
		k.Cryptoperiod.Period.Microseconds(), k.Cryptoperiod.Warn.Microseconds(),
		k.Cryptoperiod.MaxOperations, k.Cryptoperiod.MaxBytes, k.SuspendedDecrypts, k.MAC, k.ByPolicy)
	if err != nil {
		return err
	}
	t.keyChanged(k.ID)
	stored, err := t.versions(ctx, k.ID)
	if err != nil {
		return err
	}
	return t.putVersions(ctx, k, stored)
}

// readTransition reads a row of a key's history.
func readTransition(row scanner) (tr keys.Transition, err error) {
	return tr, row.Scan(&tr.Version, &tr.From, &tr.To, into{&tr.At}, &tr.Actor, &tr.Reason)
}

// AddTransitions implements keys.Tx.
func (t *txn) AddTransitions(ctx context.Context, id envelope.KeyID, ts []keys.Transition) error {
	for _, tr := range ts {
		err := t.mustChange(ctx, notFound("key"), "recording a transition",
			`INSERT INTO key_transitions (key_id, number, version, from_state, to_state, at, actor, reason)
			SELECT k.id, (SELECT COALESCE(MAX(h.number), 0) + 1 FROM key_transitions h WHERE h.key_id = $1), $2, $3, $4, $5, $6, $7
			FROM keys k WHERE k.id = $1`,
			id[:], tr.Version, string(tr.From), string(tr.To), tr.At, tr.Actor, tr.Reason)
		if err != nil {
			return err
		}
	}
	return nil
}

// Transitions implements keys.Tx, oldest first.
func (t *txn) Transitions(ctx context.Context, id envelope.KeyID) ([]keys.Transition, error) {
	return all(ctx, t, "reading the history of a key", readTransition,
		`SELECT version, from_state, to_state, at, actor, reason FROM key_transitions WHERE key_id = $1 ORDER BY number`, id[:])
}

// activeLast orders versions for writing: the one that becomes active comes last, since the tables refuse two.
func activeLast(versions []keys.Version) []keys.Version {
	out := slices.Clone(versions)
	slices.SortStableFunc(out, func(a, b keys.Version) int {
		switch {
		case a.State == keys.Active && b.State != keys.Active:
			return 1
		case b.State == keys.Active && a.State != keys.Active:
			return -1
		}
		return 0
	})
	return out
}
