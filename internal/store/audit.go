package store

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// A segment's primary key, its place, is one number: the shard, then the index of its first event. So the order of the
// table is the order of an export, an index is found by it, and the table needs no second index for either: a commit of
// the hot path writes into two trees only, the table and the narrow index of the queries (docs/decisions/0006).
const (
	indexBits = 44 // 17 trillion events in a shard, half a million shards
	maxIndex  = 1<<indexBits - 1
	maxShard  = 1<<(63-indexBits) - 1
)

// placeOf is the primary key of the segment of a shard that begins with an event.
func placeOf(shard int, first uint64) (int64, error) {
	if shard < 0 || shard > maxShard || first > maxIndex {
		return 0, fault.New(api.CodeLimit, "the audit log has as many shards or events as it can number")
	}
	return int64(shard)<<indexBits | int64(first), nil
}

const segmentColumns = `place, seq, epoch, count, first_time, last_time, mask, root, edge, nonce, lines`

// appendSQL writes one segment if the shard is still the writer's and its head is the one that the segment was built on.
// The head is the shard's last segment: there is no second row to keep in step. $12 and $13 are the shard and the
// lowest place in it.
func (b *Backend) appendSQL(premises string) string {
	return `INSERT INTO audit_segments (` + segmentColumns + `)
	SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), CAST($3 AS BIGINT), $4, $5, $6, $7, $8, $9, $10, $11 FROM audit_shards s
	WHERE s.shard = $12 AND s.epoch = $3
		AND (EXISTS (SELECT 1 FROM (` + lastOfShard + `) h WHERE h.seq = $2 - 1 AND h.place + h.count = $1)
			OR $2 = 1 AND $1 = $13 AND NOT EXISTS (` + lastOfShard + `))` + premises + b.ShareLock
}

// lastOfShard is the head of the shard whose lowest place is $13.
const lastOfShard = `SELECT seq, place, count FROM audit_segments WHERE place >= $13 AND place <= $13 + 17592186044415 ORDER BY place DESC LIMIT 1`

// appendArgs are the arguments of appendSQL.
func appendArgs(s *audit.Segment) (args [13]any, err error) {
	low, err := placeOf(s.Shard, 0)
	if err != nil {
		return args, err
	}
	place, err := placeOf(s.Shard, s.First+uint64(s.Count)) // its end counts too: the next one has to fit
	if err != nil {
		return args, err
	}
	if s.Count < 1 || s.Seq < 1 || len(s.Lines) == 0 {
		return args, fault.New(api.CodeInternal, "writing the audit log: a segment without an event")
	}
	args = [13]any{place - int64(s.Count), s.Seq, s.Epoch, s.Count, s.FirstTime, s.LastTime, s.Mask, s.Root[:], s.Edge, s.Nonce, s.Lines,
		s.Shard, low}
	if s.Edge == nil {
		args[8] = []byte{}
	}
	return args, bind(args[:])
}

// AppendSegment implements audit.Tx. Whoever may append to the shard beside this transaction has to be kept out before
// the transaction begins: PostgreSQL's snapshot wouldn't show what he wrote meanwhile, and the segment would be fenced.
func (t *txn) AppendSegment(ctx context.Context, s *audit.Segment) error {
	args, err := appendArgs(s)
	if err != nil {
		return err
	}
	return t.mustChange(ctx, audit.ErrFenced, "writing the audit log", t.d.b.appendSQL(""), args[:]...)
}

// AcquireShard implements audit.Tx.
func (t *txn) AcquireShard(ctx context.Context, node string, now time.Time, lease time.Duration) (audit.Head, error) {
	var h audit.Head
	until := now.Add(lease)
	err := t.one(ctx, &ProblemError{Collision}, "taking a shard of the audit log", []any{&h.Shard, &h.Epoch}, t.d.b.TakeShard, node, now, until)
	var collided *ProblemError
	if errors.As(err, &collided) {
		return h, t.fail(ctx, err, "taking a shard of the audit log")
	}
	if err != nil {
		return h, err
	}
	h.Node, h.LeaseUntil = node, instant(micros(until))
	return h, t.fillHead(ctx, &h)
}

// RenewShard implements audit.Tx.
func (t *txn) RenewShard(ctx context.Context, shard int, epoch int64, until time.Time) error {
	return t.mustChange(ctx, audit.ErrFenced, "renewing the lease of an audit shard",
		`UPDATE audit_shards SET lease_until = $3 WHERE shard = $1 AND epoch = $2`, shard, epoch, until)
}

// Heads implements audit.Tx.
func (t *txn) Heads(ctx context.Context) ([]audit.Head, error) {
	heads, err := all(ctx, t, "reading the heads of the audit log", func(row scanner) (h audit.Head, err error) {
		return h, row.Scan(&h.Shard, &h.Epoch, &h.Node, into{&h.LeaseUntil})
	}, `SELECT shard, epoch, node, lease_until FROM audit_shards ORDER BY shard`)
	if err != nil {
		return nil, err
	}
	for i := range heads {
		if err := t.fillHead(ctx, &heads[i]); err != nil {
			return nil, err
		}
	}
	return heads, nil
}

// fillHead reads the last segment of the shard of h.
func (t *txn) fillHead(ctx context.Context, h *audit.Head) error {
	low, err := placeOf(h.Shard, 0)
	if err != nil {
		return err
	}
	const doing = "reading the head of the audit log"
	var place, count int64
	err = t.one(ctx, errNoSegment, doing, []any{&place, &count, &h.Seq, fixed{h.Root[:]}, &h.Edge, &h.Nonce},
		`SELECT place, count, seq, root, edge, nonce FROM audit_segments WHERE place >= $1 AND place <= $2 ORDER BY place DESC LIMIT 1`,
		low, low+maxIndex)
	if err == errNoSegment {
		h.Root = new(audit.Tree).Root()
		return nil
	}
	h.Size = uint64(place-low) + uint64(count)
	return err
}

// errNoSegment never leaves this file.
var errNoSegment = errors.New("no segment")

const checkpointColumns = `sequence, time, events, note`

func readCheckpoint(row scanner) (c audit.StoredCheckpoint, err error) {
	return c, row.Scan(&c.Sequence, into{&c.Time}, &c.Events, &c.Note)
}

// Of checkpoints that are this far behind, only each so many-th stays.
const (
	denseCheckpoints = 1000
	keepEvery        = 720
)

// PutCheckpoint implements audit.Tx.
func (t *txn) PutCheckpoint(ctx context.Context, c audit.StoredCheckpoint) error {
	const doing = "storing a checkpoint of the audit log"
	err := t.mustChange(ctx, stale("checkpoint"), doing,
		`INSERT INTO audit_checkpoints (`+checkpointColumns+`) SELECT CAST($1 AS BIGINT), $2, $3, $4
		WHERE $1 = (SELECT COALESCE(MAX(sequence), 0) + 1 FROM audit_checkpoints)`, c.Sequence, c.Time, c.Events, c.Note)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, doing, `DELETE FROM audit_checkpoints WHERE sequence < CAST($1 AS BIGINT) - CAST($2 AS BIGINT) AND sequence % $3 <> 0`,
		c.Sequence, denseCheckpoints, keepEvery)
	return err
}

// LastCheckpoint implements audit.Tx.
func (t *txn) LastCheckpoint(ctx context.Context) (audit.StoredCheckpoint, error) {
	return single(ctx, t, notFound("checkpoint"), "reading the last checkpoint", readCheckpoint,
		`SELECT `+checkpointColumns+` FROM audit_checkpoints ORDER BY sequence DESC LIMIT 1`)
}

// Checkpoints implements audit.Tx.
func (t *txn) Checkpoints(ctx context.Context, fn func(audit.StoredCheckpoint) error) error {
	list, err := all(ctx, t, "reading the checkpoints", readCheckpoint,
		`SELECT `+checkpointColumns+` FROM audit_checkpoints ORDER BY sequence`)
	for _, c := range list {
		if err := fn(c); err != nil {
			return err
		}
	}
	return err
}

// AuditKeys implements audit.Tx.
func (t *txn) AuditKeys(ctx context.Context) (audit.SealedKeys, error) {
	return single(ctx, t, notFound("audit key"), "reading the audit log's keys", func(row scanner) (k audit.SealedKeys, err error) {
		return k, row.Scan(&k.Verifier, &k.Signing, &k.MAC, into{&k.Created})
	}, `SELECT verifier, signing, mac, created FROM audit_keys WHERE id = 1`)
}

// PutAuditKeys implements audit.Tx.
func (t *txn) PutAuditKeys(ctx context.Context, k audit.SealedKeys) error {
	_, err := t.exec(ctx, "storing the audit log's keys",
		`INSERT INTO audit_keys (id, verifier, signing, mac, created) VALUES (1, $1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET verifier = excluded.verifier, signing = excluded.signing, mac = excluded.mac, created = excluded.created`,
		k.Verifier, k.Signing, k.MAC, k.Created)
	return err
}
