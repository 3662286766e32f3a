package gate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// checkpointer makes checkpoints, one at a time.
type checkpointer struct {
	mu     sync.Mutex // held while a checkpoint is made
	file   anchorFile // guarded by mu
	behind bool       // the newest checkpoint is in the store and not yet in the file; guarded by mu

	seenMu sync.Mutex
	seen   uint64 // how much of our shard the newest checkpoint covers
}

// coverage says of which shards a checkpoint is to sign the present head.
type coverage int

const (
	carryOthers coverage = iota // our own; others as in the last checkpoint, unless their node is gone
	coverAll                    // all of them
)

// Checkpoint signs the present heads of all shards and returns when that is in the store and in the file. Heads of other
// nodes are signed only after their events since the last checkpoint were hashed again. When nothing was added since,
// the last checkpoint comes back. Unavailable when it could not be written everywhere; integrity when the log doesn't
// continue the last checkpoint.
func (g *Gate) Checkpoint(ctx context.Context) (audit.Checkpoint, error) {
	if err := g.Err(); err != nil {
		return audit.Checkpoint{}, err
	}
	return g.sign(ctx, coverAll)
}

// keepCheckpoints makes a checkpoint from time to time while the log grows.
func (g *Gate) keepCheckpoints(running context.Context) {
	tick := time.NewTicker(g.cfg.CheckpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-running.Done():
			return
		case <-tick.C:
		}
		if g.Err() != nil || !g.grown() {
			continue
		}
		if _, err := g.sign(running, carryOthers); err != nil && running.Err() == nil {
			g.cfg.Log.Warn("making a checkpoint of the audit log failed", "reason", fault.MessageOf(err))
		}
	}
}

// grown says whether our shard has events that no checkpoint covers.
func (g *Gate) grown() bool {
	g.checkpoints.seenMu.Lock()
	seen := g.checkpoints.seen
	g.checkpoints.seenMu.Unlock()
	return g.ownHead().Size > seen
}

func (g *Gate) ownHead() audit.ShardHead {
	g.headMu.Lock()
	defer g.headMu.Unlock()
	return g.head
}

// rivals is how often another node may sign a checkpoint between our reading and our writing before we give up.
const rivals = 8

// sign makes the next checkpoint. First the store, then the file: a crash in between leaves the file behind, which Start
// makes up for; the other order could leave a file ahead of its store, which is how a store that was set back looks.
func (g *Gate) sign(ctx context.Context, cover coverage) (audit.Checkpoint, error) {
	k := &g.checkpoints
	k.mu.Lock()
	defer k.mu.Unlock()
	for range rivals {
		ends, err := g.readEnds(ctx)
		last := ends.signed
		var next audit.Checkpoint
		if err == nil {
			next, err = g.continuation(ctx, ends, cover)
		}
		if err != nil {
			if fault.CodeOf(err) == api.CodeIntegrity {
				g.stop(err)
			}
			return audit.Checkpoint{}, err
		}
		if last.Sequence > 0 && slices.Equal(next.Shards, last.Shards) && slices.Equal(next.Rows, last.Rows) {
			return last, g.publish(last, k.behind)
		}
		if err := next.Sign(g.signer); err != nil {
			return audit.Checkpoint{}, err
		}
		err = g.st.Change(ctx, func(tx store.Tx) error {
			return tx.PutCheckpoint(ctx, audit.StoredCheckpoint{Sequence: next.Sequence, Time: next.Time, Events: next.Events(), Note: next.Note})
		})
		if fault.CodeOf(err) == api.CodeConflict {
			continue
		}
		if err != nil {
			return audit.Checkpoint{}, fault.Wrap("", err, "storing a checkpoint of the audit log")
		}
		return next, g.publish(next, true)
	}
	return audit.Checkpoint{}, fault.New(api.CodeUnavailable, "making a checkpoint of the audit log: other nodes were always faster").WithNext("try again")
}

// publish appends the checkpoint to the file if it isn't there yet, and remembers what it covers. A failing fsync stops
// the gate: what the kernel then holds of the file is anybody's guess. Any other failure is made up for later.
func (g *Gate) publish(c audit.Checkpoint, write bool) error {
	k := &g.checkpoints
	if write {
		k.behind = true
		if err := k.file.append(c.Note); err != nil {
			if k.file.broken {
				g.stop(err)
			}
			return err
		}
		k.behind = false
	}
	k.seenMu.Lock()
	k.seen = c.Head(g.shard.number).Size
	k.seenMu.Unlock()
	return nil
}

// ends is how far the store is, and how far its newest checkpoint says it was, in one snapshot.
type ends struct {
	signed audit.Checkpoint // with its signature checked; zero when there is none
	heads  []audit.Head     // of all shards
	own    audit.ShardHead  // what our shard was, in memory, before the snapshot: it can't be shorter
	rows   []uint64         // what audit.Checkpoint.Rows would be now
	badSum error            // why rows can't be told
}

func (g *Gate) readEnds(ctx context.Context) (e ends, err error) {
	var stored audit.StoredCheckpoint
	e.own = g.ownHead()
	err = g.st.View(ctx, func(tx store.Tx) error {
		if stored, err = tx.LastCheckpoint(ctx); err != nil && fault.CodeOf(err) != api.CodeNotFound {
			return err
		}
		if e.heads, err = tx.Heads(ctx); err != nil {
			return err
		}
		if e.rows, e.badSum = g.cfg.SumCounts(ctx, tx); fault.CodeOf(e.badSum) != api.CodeIntegrity {
			return e.badSum
		}
		return nil
	})
	if err != nil {
		return e, fault.Wrap("", err, "reading the heads of the audit log")
	}
	if stored.Note == "" {
		return e, nil
	}
	e.signed, err = audit.ParseCheckpoint(stored.Note, g.cfg.Key)
	if err == nil && (e.signed.Sequence != stored.Sequence || e.signed.Events() != stored.Events) {
		err = fault.New(api.CodeIntegrity, "the newest checkpoint in the store is not what its row says")
	}
	return e, err
}

// continuation is the checkpoint that follows last, not yet signed: every shard at a head that is known to continue it.
func (g *Gate) continuation(ctx context.Context, e ends, cover coverage) (audit.Checkpoint, error) {
	last := e.signed
	next := audit.Checkpoint{Sequence: last.Sequence + 1, Time: g.now(), Rows: e.rows}
	own := g.ownHead()
	listed := 0
	if err := e.rowsSetBack(last); err != nil {
		return next, err
	}
	for _, h := range e.heads {
		signed, now := last.Head(h.Shard), audit.ShardHead{Shard: h.Shard, Size: h.Size, Root: h.Root}
		if signed.Size > 0 {
			listed++
		}
		switch {
		case h.Shard == own.Shard:
			// A store that lost our end, by a failover that nothing of ours has noticed yet, must not get a checkpoint that
			// signs it: no start would ever believe that store again.
			if isBehind(now, e.own) {
				return next, notOurs(h.Shard)
			}
			now = own // in memory: the snapshot may be older
			if err := notShorter(signed, now); err != nil {
				return next, err
			}
		case cover == coverAll || h.LeaseUntil.Before(next.Time):
			if err := g.checkExtension(ctx, signed, now); err != nil {
				return next, err
			}
		default:
			now = signed
		}
		if now.Size > 0 {
			next.Shards = append(next.Shards, now)
		}
	}
	if listed != len(last.Shards) {
		return next, fault.New(api.CodeIntegrity, "a shard of the audit log that a checkpoint covers is gone").WithNext(evidence)
	}
	return next, nil
}

// evidence is the next step wherever the log is not what was signed.
const evidence = "keep the store and every checkpoint file as evidence, then find out who changed it; keyturn audit verify names the place"

// rowsSetBack is an error of code integrity when the rows can't be what came after a checkpoint.
func (e *ends) rowsSetBack(signed audit.Checkpoint) error {
	if e.badSum != nil {
		return e.badSum
	}
	if !signed.RowsBehind(e.rows) {
		return nil
	}
	return fault.Newf(api.CodeIntegrity, "rows of the store are older than audit checkpoint %d says: they were put back to an earlier state", signed.Sequence).
		WithNext("keep the database and every checkpoint file as evidence, and put its newest state back: docs/runbooks/rows-set-back.md")
}

// notOurs is the error of a shard whose end is not what its node wrote last.
func notOurs(shard int) error {
	return fault.Newf(api.CodeIntegrity, "audit shard %d ends with something that this node did not write", shard).
		WithNext("run keyturn audit verify, and find out who else writes to the store")
}

// isBehind says that a shard can't have come to now after it was known to be at an earlier head.
func isBehind(now, known audit.ShardHead) bool {
	return now.Size < known.Size || now.Size == known.Size && now.Root != known.Root
}

func notShorter(signed, now audit.ShardHead) error {
	if isBehind(now, signed) {
		return fault.Newf(api.CodeIntegrity, "audit shard %d has %d events, and a checkpoint signed %d: the store was set back or changed", now.Shard, now.Size, signed.Size).
			WithNext(evidence)
	}
	return nil
}
