package gate

import (
	"bytes"
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// checkAnchors holds the store against the newest checkpoint that it has itself and the newest in the file, before
// anything is answered. Our own shard is hashed again from there to its end; of the others, whose nodes do the same, the
// size must suffice. A file that a crash left behind gets the checkpoint that it misses.
func (g *Gate) checkAnchors(ctx context.Context) error {
	e, err := g.readEnds(ctx)
	if err != nil {
		return err
	}
	last := e.signed
	k := &g.checkpoints
	k.mu.Lock()
	defer k.mu.Unlock()
	kept, err := k.file.newest(g.cfg.Key)
	if err != nil {
		return err
	}
	if kept.Sequence > last.Sequence || kept.Sequence == last.Sequence && kept.Note != last.Note {
		return fault.Newf(api.CodeIntegrity, "the store's newest audit checkpoint is number %d, and %s has number %d: the store was set back or replaced", last.Sequence, k.file.path, kept.Sequence).
			WithNext("put the newer store back; if the older one is wanted, keep the checkpoint file as evidence and move it away")
	}
	if g.cfg.AcceptRows != nil {
		if err := g.cfg.AcceptRows(ctx, last.Rows); err != nil {
			return err
		}
		if e, err = g.readEnds(ctx); err != nil {
			return err
		}
	}
	for _, anchor := range []audit.Checkpoint{kept, last} {
		if err := g.checkAnchor(ctx, anchor, e); err != nil {
			return err
		}
	}
	return g.publish(last, k.file.path != "" && last.Sequence > kept.Sequence)
}

func (g *Gate) checkAnchor(ctx context.Context, anchor audit.Checkpoint, e ends) error {
	if err := e.rowsSetBack(anchor); err != nil {
		return err
	}
	now := map[int]audit.ShardHead{}
	for _, h := range e.heads {
		now[h.Shard] = audit.ShardHead{Shard: h.Shard, Size: h.Size, Root: h.Root}
	}
	for _, signed := range anchor.Shards {
		if err := notShorter(signed, now[signed.Shard]); err != nil {
			return err
		}
	}
	return g.checkExtension(ctx, anchor.Head(g.shard.number), g.ownHead())
}

// page is how many segments are read in one go: no transaction stays open while somebody works on what was read.
const page = 128

// checkExtension hashes what came into a shard between a signed head and its present one, and says integrity unless the
// first really leads to the second.
func (g *Gate) checkExtension(ctx context.Context, signed, now audit.ShardHead) error {
	if err := notShorter(signed, now); err != nil || signed.Size == now.Size {
		return err
	}
	tree, err := g.treeAt(ctx, signed)
	if err != nil {
		return err
	}
	for tree.Size() < now.Size {
		before := tree.Size()
		q := audit.SegmentQuery{Shard: now.Shard, FromIndex: before, ToIndex: now.Size, Limit: page}
		err := g.segments(ctx, q, func(s *audit.Segment) error { return extend(tree, s) })
		if err != nil {
			return err
		}
		if tree.Size() == before {
			break
		}
	}
	if tree.Size() != now.Size || tree.Root() != now.Root {
		return fault.Newf(api.CodeIntegrity, "audit shard %d does not continue what was signed at %d events", now.Shard, signed.Size).WithNext(evidence)
	}
	return nil
}

// treeAt is the shard's tree at a signed head. Its edge is read from the segment that ended there, and is believed
// because it gives the signed root.
func (g *Gate) treeAt(ctx context.Context, signed audit.ShardHead) (tree *audit.Tree, err error) {
	if signed.Size == 0 {
		return new(audit.Tree), nil
	}
	q := audit.SegmentQuery{Shard: signed.Shard, FromIndex: signed.Size - 1, ToIndex: signed.Size, Limit: 1, NoLines: true}
	err = g.segments(ctx, q, func(s *audit.Segment) (err error) {
		if s.First+uint64(s.Count) == signed.Size {
			tree, err = audit.TreeFrom(signed.Size, s.Edge)
		}
		return err
	})
	if err == nil && (tree == nil || tree.Root() != signed.Root) {
		err = fault.Newf(api.CodeIntegrity, "audit shard %d is not what was signed at %d events", signed.Shard, signed.Size).WithNext(evidence)
	}
	return tree, err
}

// extend appends a segment's events to the tree.
func extend(tree *audit.Tree, s *audit.Segment) error {
	if s.First != tree.Size() {
		return fault.Newf(api.CodeIntegrity, "event %d of audit shard %d is missing", tree.Size(), s.Shard).WithNext(evidence)
	}
	for line := range bytes.SplitSeq(s.Lines, []byte{'\n'}) {
		tree.Append(audit.LeafHash(line))
	}
	return nil
}

// segments is Tx.Segments in a snapshot of its own.
func (g *Gate) segments(ctx context.Context, q audit.SegmentQuery, fn func(*audit.Segment) error) error {
	return g.st.View(ctx, func(tx store.Tx) error { return tx.Segments(ctx, q, fn) })
}
