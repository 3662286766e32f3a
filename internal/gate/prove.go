package gate

import (
	"bytes"
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// Prove gives for each exported line the proof that it is in the log, against a checkpoint that is made for the occasion. It
// hashes every shard that a line is of once, however many lines there are.
func (g *Gate) Prove(ctx context.Context, lines [][]byte) ([]audit.EventProof, error) {
	end, err := g.endOfLog(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]audit.EventProof, len(lines))
	indexes, places := map[int][]uint64{}, map[int][]int{} // by shard: where in it, and where in lines
	for i, line := range lines {
		shard, index, ok := audit.PlaceOf(line)
		if !ok {
			return nil, fault.New(api.CodeInternal, "proving an event that has no place in the log")
		}
		indexes[shard], places[shard] = append(indexes[shard], index), append(places[shard], i)
		out[i] = audit.EventProof{Event: string(line), Checkpoint: end.Note}
	}
	for shard, wanted := range indexes {
		all, err := g.proveShard(ctx, end.Head(shard), wanted)
		if err != nil {
			return nil, err
		}
		for n, i := range places[shard] {
			if out[i].Path, err = all.Proof(n); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// proveShard hands every leaf of a shard up to a signed head to the provers of some of its events.
func (g *Gate) proveShard(ctx context.Context, head audit.ShardHead, indexes []uint64) (*audit.AllProver, error) {
	all, err := audit.ProveAll(indexes, head.Size)
	if err != nil {
		return nil, err
	}
	left := head.Size
	err = g.walk(ctx, head, func(s *audit.Segment) error {
		for line := range bytes.SplitSeq(s.Lines, []byte{'\n'}) {
			if left == 0 {
				break
			}
			left--
			all.Leaf(audit.LeafHash(line))
		}
		return ctx.Err()
	})
	return all, err
}

// SignStatement signs a document with the log's key, see audit.SignStatement.
func (g *Gate) SignStatement(kind string, document []byte) (string, error) {
	if err := g.Err(); err != nil {
		return "", err
	}
	return audit.SignStatement(g.signer, kind, document)
}

// Origin is the log's name, as checkpoints and statements carry it.
func (g *Gate) Origin() string { return g.cfg.Key.Origin() }
