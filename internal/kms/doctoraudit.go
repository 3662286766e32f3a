package kms

import (
	"bytes"
	"context"
	"fmt"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// checkAudit is quick, however long the log is: the signature of the newest checkpoint, that no shard is shorter than it
// says, and that the newest segment of every shard gives the shard's root. `audit verify` reads everything.
func (s *Service) checkAudit(ctx context.Context) (bool, string, string) {
	const fix = "keyturn audit verify names the first bad place; keep the data directory as it is"
	var events uint64
	var problem string
	err := s.st.View(ctx, func(tx store.Tx) error {
		events, problem = 0, ""
		signed, err := newestCheckpoint(ctx, tx)
		if err != nil {
			return err
		}
		sizes := map[int]uint64{}
		err = eachLastSegment(ctx, tx, func(h audit.Head, last *audit.Segment) error {
			sizes[h.Shard], events = h.Size, events+h.Size
			if problem == "" {
				problem, err = checkSegment(ctx, tx, h, last)
			}
			return err
		})
		for _, shard := range signed.Shards {
			if sizes[shard.Shard] < shard.Size && problem == "" {
				problem = fmt.Sprintf("shard %d has %d events, and %d were signed", shard.Shard, sizes[shard.Shard], shard.Size)
			}
		}
		return err
	})
	switch {
	case err != nil:
		ok, detail, next := unknown(err)
		if next == "" {
			next = fix
		}
		return ok, detail, next
	case problem != "":
		return false, problem, fix
	}
	return true, fmt.Sprintf("%d events, the end of the log fits its head and its newest checkpoint", events), ""
}

// newestCheckpoint is the newest one with its signature checked; the zero one when there is none yet.
func newestCheckpoint(ctx context.Context, tx store.Tx) (audit.Checkpoint, error) {
	sealed, err := tx.AuditKeys(ctx)
	if err != nil {
		return audit.Checkpoint{}, fault.Wrap("", err, "reading the audit log's public key")
	}
	key, err := audit.ParseKey(sealed.Verifier)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	last, err := tx.LastCheckpoint(ctx)
	if fault.CodeOf(err) == api.CodeNotFound {
		return audit.Checkpoint{}, nil
	}
	if err != nil {
		return audit.Checkpoint{}, err
	}
	return audit.ParseCheckpoint(last.Note, key)
}

// eachLastSegment calls do with the head of every shard that has events, and its newest segment.
func eachLastSegment(ctx context.Context, tx store.Tx, do func(audit.Head, *audit.Segment) error) error {
	heads, err := tx.Heads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if h.Size == 0 {
			continue
		}
		last, err := segmentAt(ctx, tx, h.Shard, h.Size-1)
		if err != nil {
			return err
		}
		if err := do(h, last); err != nil {
			return err
		}
	}
	return nil
}

// segmentAt copies the segment that holds one event.
func segmentAt(ctx context.Context, tx store.Tx, shard int, index uint64) (*audit.Segment, error) {
	var found *audit.Segment
	q := audit.SegmentQuery{Shard: shard, FromIndex: index, ToIndex: index + 1}
	err := tx.Segments(ctx, q, func(s *audit.Segment) error {
		c := *s
		c.Lines, c.Edge = bytes.Clone(s.Lines), bytes.Clone(s.Edge)
		found = &c
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fault.Newf(api.CodeIntegrity, "the audit log has no event %d of shard %d, which its head counts", index, shard)
	}
	return found, nil
}

// checkSegment hashes the newest segment onto the edge of the one before and compares with the head. It returns what is
// wrong, in words.
func checkSegment(ctx context.Context, tx store.Tx, h audit.Head, last *audit.Segment) (string, error) {
	tree := &audit.Tree{}
	if last.First > 0 {
		before, err := segmentAt(ctx, tx, h.Shard, last.First-1)
		if err != nil {
			return "", err
		}
		if tree, err = audit.TreeFrom(last.First, before.Edge); err != nil {
			return "", err
		}
		if tree.Root() != before.Root {
			return fmt.Sprintf("the segment before the last of shard %d contradicts itself", h.Shard), nil
		}
	}
	for line := range bytes.SplitSeq(last.Lines, []byte("\n")) {
		tree.Append(audit.LeafHash(line))
	}
	if tree.Size() != h.Size || tree.Root() != h.Root || tree.Root() != last.Root {
		return fmt.Sprintf("the newest events of shard %d are not those that its head was made of", h.Shard), nil
	}
	return "", nil
}
