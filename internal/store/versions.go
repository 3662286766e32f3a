package store

import (
	"bytes"
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

const versionColumns = `key_id, number, state, prior_state, seq, created, activated, expires, destroy_at, destroyed,
	last_opened, operations, bytes, kek, wrapped, reason, actor, sample, force_by, force_at`

// keyVersion is a version with the key that it belongs to.
type keyVersion struct {
	key envelope.KeyID
	keys.Version
}

func readVersion(row scanner) (v keyVersion, err error) {
	err = row.Scan(fixed{v.key[:]}, &v.Number, &v.State, &v.PriorState, &v.Seq, into{&v.Created}, into{&v.Activated},
		into{&v.Expires}, into{&v.DestroyAt}, into{&v.Destroyed}, into{&v.LastOpened}, &v.Operations, &v.Bytes,
		&v.KEK, &v.Wrapped, &v.Reason, &v.Actor, &v.Sample, &v.ForceBy, into{&v.ForceAt})
	return v, err
}

func (t *txn) versions(ctx context.Context, id envelope.KeyID) ([]keys.Version, error) {
	rows, err := all(ctx, t, "reading the versions of a key", readVersion,
		`SELECT `+versionColumns+` FROM key_versions WHERE key_id = $1 ORDER BY number`, id[:])
	if err != nil {
		return nil, err
	}
	out := make([]keys.Version, len(rows))
	for i, v := range rows {
		out[i] = v.Version
	}
	return out, nil
}

// putVersions writes the versions that differ from the stored ones. Versions are never taken away.
func (t *txn) putVersions(ctx context.Context, k keys.Key, stored []keys.Version) error {
	if len(k.Versions) < len(stored) {
		return fault.New(api.CodeInternal, "changing a key: a version is missing, and versions are never taken away")
	}
	for _, v := range activeLast(k.Versions) {
		i := int(v.Number) - 1
		if i < 0 || i >= len(k.Versions) {
			return fault.New(api.CodeInternal, "storing a key: its versions aren't numbered from 1 without a gap")
		}
		if i < len(stored) && sameVersion(v, stored[i]) {
			continue
		}
		if err := t.putVersion(ctx, k.ID, v); err != nil {
			return err
		}
		if i < len(stored) && stored[i].Wrapped != nil && v.Wrapped == nil {
			t.destroyed = true
		}
	}
	return nil
}

// sameVersion leaves out the counters, which UpdateKey doesn't write.
func sameVersion(a, b keys.Version) bool {
	return a.State == b.State && a.PriorState == b.PriorState && a.Seq == b.Seq && a.KEK == b.KEK &&
		a.Reason == b.Reason && a.Actor == b.Actor && bytes.Equal(a.Wrapped, b.Wrapped) && bytes.Equal(a.Sample, b.Sample) &&
		micros(a.Created) == micros(b.Created) && micros(a.Activated) == micros(b.Activated) &&
		micros(a.Expires) == micros(b.Expires) && micros(a.DestroyAt) == micros(b.DestroyAt) &&
		micros(a.Destroyed) == micros(b.Destroyed) && a.ForceBy == b.ForceBy && micros(a.ForceAt) == micros(b.ForceAt)
}

// putVersion writes a version; of one that is there already the counters stay as they are.
func (t *txn) putVersion(ctx context.Context, id envelope.KeyID, v keys.Version) error {
	_, err := t.exec(ctx, "storing a version of a key",
		`INSERT INTO key_versions (`+versionColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
		ON CONFLICT (key_id, number) DO UPDATE SET state = excluded.state, prior_state = excluded.prior_state,
			seq = excluded.seq, created = excluded.created, activated = excluded.activated, expires = excluded.expires,
			destroy_at = excluded.destroy_at, destroyed = excluded.destroyed, kek = excluded.kek,
			wrapped = excluded.wrapped, reason = excluded.reason, actor = excluded.actor, sample = excluded.sample,
			force_by = excluded.force_by, force_at = excluded.force_at`,
		id[:], v.Number, string(v.State), string(v.PriorState), v.Seq, v.Created, v.Activated, v.Expires, v.DestroyAt,
		v.Destroyed, v.LastOpened, v.Operations, v.Bytes, string(v.KEK), v.Wrapped, v.Reason, v.Actor, v.Sample, v.ForceBy, v.ForceAt)
	return err
}

// ReserveUsage implements keys.Tx in one statement, so that no two reservations see the same counters. Counters end at
// 63 bits, which is a limit like any other.
func (t *txn) ReserveUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) (opsTotal, bytesTotal uint64, err error) {
	const doing = "reserving the use of a key"
	none := fault.New(api.CodeLimit, doing) // replaced below by one that names the key
	err = t.one(ctx, none, doing, []any{&opsTotal, &bytesTotal},
		`UPDATE key_versions SET operations = operations + $3, bytes = bytes + $4
		WHERE key_id = $1 AND number = $2 AND operations <= 9223372036854775807 - $3 AND bytes <= 9223372036854775807 - $4
			AND EXISTS (SELECT 1 FROM keys k WHERE k.id = $1
				AND (k.max_operations = 0 OR k.max_operations >= key_versions.operations + $3)
				AND (k.max_bytes = 0 OR k.max_bytes >= key_versions.bytes + $4))
		RETURNING operations, bytes`, id[:], version, ops, bytes)
	if err != none {
		return opsTotal, bytesTotal, err
	}
	name, err := t.nameOfVersion(ctx, doing, id, version)
	if err != nil {
		return 0, 0, err
	}
	return 0, 0, keys.LimitReached(name, version)
}

// ReturnUsage implements keys.Tx. It never goes below zero.
func (t *txn) ReturnUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) error {
	return t.mustChange(ctx, notFound("version"), "returning the unused part of a reservation",
		`UPDATE key_versions SET operations = CASE WHEN operations > $3 THEN operations - $3 ELSE 0 END,
			bytes = CASE WHEN bytes > $4 THEN bytes - $4 ELSE 0 END
		WHERE key_id = $1 AND number = $2`, id[:], version, ops, bytes)
}

// MarkOpened implements keys.Tx.
func (t *txn) MarkOpened(ctx context.Context, id envelope.KeyID, version uint32, at time.Time) error {
	const doing = "noting that a version was used"
	n, err := t.exec(ctx, doing, `UPDATE key_versions SET last_opened = $3 WHERE key_id = $1 AND number = $2 AND last_opened < $3`,
		id[:], version, at)
	if err == nil && n == 0 {
		_, err = t.nameOfVersion(ctx, doing, id, version)
	}
	return err
}

// nameOfVersion is the name of the key if it has this version, not_found otherwise.
func (t *txn) nameOfVersion(ctx context.Context, doing string, id envelope.KeyID, version uint32) (name string, err error) {
	err = t.one(ctx, notFound("version"), doing, []any{&name},
		`SELECT k.name FROM keys k JOIN key_versions v ON v.key_id = k.id WHERE k.id = $1 AND v.number = $2`, id[:], version)
	return name, err
}
