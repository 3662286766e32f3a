package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// activeRef is the active version of a key: 48 bytes for each key while they are walked.
type activeRef struct {
	id        envelope.KeyID
	activated int64
	ops, used uint64
	number    uint32
}

// EachActive implements keys.Tx. Every key of a hundred thousand is asked for in a rotation check, so each table is read once
// in the order in which it lies there, and joined here: the key ids are random, and the databases' own join by them looks up
// every row of one table at a place of its own.
func (t *txn) EachActive(ctx context.Context, do func(v *keys.ActiveVersion) error) error {
	const doing = "listing active versions"
	var active []activeRef // by id
	var ref activeRef
	var id sql.RawBytes
	dest := []any{&id, number[uint32]{&ref.number}, number[int64]{&ref.activated}, number[uint64]{&ref.ops}, number[uint64]{&ref.used}}
	err := t.each(ctx, doing, func(rows *sql.Rows) error {
		if err := rows.Scan(dest...); err != nil {
			return t.fail(ctx, err, doing)
		}
		if err := (fixed{ref.id[:]}).Scan([]byte(id)); err != nil {
			return t.fail(ctx, err, doing)
		}
		active = append(active, ref)
		return nil
	}, `SELECT key_id, number, activated, operations, bytes FROM key_versions WHERE state = 'active' ORDER BY key_id`)
	if err != nil {
		return err
	}
	var v keys.ActiveVersion
	var purpose sql.RawBytes
	limits := &v.Cryptoperiod
	dest = []any{&id, &v.Key, &purpose, &v.ByPolicy, number[time.Duration]{&limits.Period}, number[time.Duration]{&limits.Warn}, number[uint64]{&limits.MaxOperations}, number[uint64]{&limits.MaxBytes}}
	return t.each(ctx, doing, func(rows *sql.Rows) error {
		if err := rows.Scan(dest...); err != nil {
			return t.fail(ctx, err, doing)
		}
		i, ok := slices.BinarySearchFunc(active, id, func(a activeRef, id sql.RawBytes) int { return bytes.Compare(a.id[:], id) })
		if !ok {
			return nil
		}
		if string(v.Purpose) != string(purpose) {
			v.Purpose = keys.Purpose(purpose)
		}
		limits.Period, limits.Warn = limits.Period*time.Microsecond, limits.Warn*time.Microsecond
		v.Number, v.Activated = active[i].number, instant(active[i].activated)
		v.Operations, v.Bytes = active[i].ops, active[i].used
		return do(&v)
	}, `SELECT id, name, purpose, by_policy, period, warn, max_operations, max_bytes FROM keys`)
}

const rotationColumns = `key_id, new_version, old_version, reason, actor, source, incident, at, duration, self_check, rows_moved`

// AddRotation implements keys.Tx.
func (t *txn) AddRotation(ctx context.Context, r keys.Rotation) error {
	_, err := t.exec(ctx, "recording a rotation",
		`INSERT INTO rotations (`+rotationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		r.KeyID[:], r.NewVersion, r.OldVersion, r.Reason, r.Actor, r.Source, r.Incident, r.At, r.Duration.Microseconds(), r.SelfCheck, r.Rows)
	return err
}

// NoteSelfCheck implements keys.Tx.
func (t *txn) NoteSelfCheck(ctx context.Context, id envelope.KeyID, version uint32, found string) error {
	_, err := t.exec(ctx, "recording a self-check", `UPDATE rotations SET self_check = $3 WHERE key_id = $1 AND new_version = $2`, id[:], version, found)
	return err
}

// AddRowsMoved implements keys.Tx.
func (t *txn) AddRowsMoved(ctx context.Context, id envelope.KeyID, version uint32, rows int64) error {
	_, err := t.exec(ctx, "counting the rows moved after a rotation",
		`UPDATE rotations SET rows_moved = rows_moved + $3 WHERE key_id = $1 AND new_version = $2`, id[:], version, rows)
	return err
}

// Rotations implements keys.Tx.
func (t *txn) Rotations(ctx context.Context, of envelope.KeyID, before keys.Rotation, limit int) ([]keys.Rotation, error) {
	c := &conditions{}
	if !of.IsZero() {
		c.add(`r.key_id = $%d`, of[:])
	}
	if before.NewVersion != 0 {
		c.add(`(r.at < $%d OR r.at = $%d AND (r.key_id < $%d OR r.key_id = $%d AND r.new_version < $%d))`,
			before.At, before.At, before.KeyID[:], before.KeyID[:], before.NewVersion)
	}
	c.args = append(c.args, limit)
	return all(ctx, t, "reading the history of rotations", func(row scanner) (r keys.Rotation, err error) {
		var duration int64
		err = row.Scan(fixed{r.KeyID[:]}, &r.NewVersion, &r.OldVersion, &r.Reason, &r.Actor, &r.Source, &r.Incident, into{&r.At}, &duration, &r.SelfCheck, &r.Rows, &r.Key)
		r.Duration = time.Duration(duration) * time.Microsecond
		return r, err
	}, `SELECT r.key_id, r.new_version, r.old_version, r.reason, r.actor, r.source, r.incident, r.at, r.duration, r.self_check,
			r.rows_moved, k.name
		FROM rotations r JOIN keys k ON k.id = r.key_id`+c.where()+` ORDER BY r.at DESC, r.key_id DESC, r.new_version DESC LIMIT $`+strconv.Itoa(len(c.args)), c.args...)
}

// PutPolicy implements keys.Tx.
func (t *txn) PutPolicy(ctx context.Context, p keys.Policy) error {
	const doing = "storing a policy"
	rule, err := json.Marshal(p.Rule)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, doing)
	}
	var other string
	err = t.one(ctx, errNoPolicy, doing, []any{&other},
		`SELECT name FROM policies WHERE key = $1 AND purpose = $2 AND environment = $3 AND name <> $4`, p.Key, string(p.Purpose), p.Environment, p.Name)
	if err == nil {
		return fault.Newf(api.CodeConflict, "setting a policy: policy %s is about the same keys", other).WithField("policy").
			WithNext("change that one, or take it away: keyturn policy remove " + other)
	}
	if err != errNoPolicy {
		return err
	}
	_, err = t.exec(ctx, doing,
		`INSERT INTO policies (name, key, purpose, environment, rule, created, actor, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (name) DO UPDATE SET key = excluded.key, purpose = excluded.purpose, environment = excluded.environment,
			rule = excluded.rule, created = excluded.created, actor = excluded.actor, mac = excluded.mac`,
		p.Name, p.Key, string(p.Purpose), p.Environment, string(rule), p.Created, p.Actor, p.MAC)
	return err
}

var errNoPolicy = notFound("policy")

// Policies implements keys.Tx.
func (t *txn) Policies(ctx context.Context) ([]keys.Policy, error) {
	return all(ctx, t, "reading the policies", func(row scanner) (p keys.Policy, err error) {
		var rule string
		if err := row.Scan(&p.Name, &p.Key, &p.Purpose, &p.Environment, &rule, into{&p.Created}, &p.Actor, &p.MAC); err != nil {
			return p, err
		}
		p.Origin = keys.OriginSet
		if json.Unmarshal([]byte(rule), &p.Rule) != nil {
			p.MAC = "" // nobody of ours wrote it, and one row must not keep the others from being read
		}
		return p, nil
	}, `SELECT name, key, purpose, environment, rule, created, actor, mac FROM policies ORDER BY name`)
}

// DeletePolicy implements keys.Tx.
func (t *txn) DeletePolicy(ctx context.Context, name string) error {
	return t.mustChange(ctx, notFound("policy"), "removing a policy", `DELETE FROM policies WHERE name = $1`, name)
}
