package gate

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Verify reads the whole log of the store and checks it against a checkpoint that is made for the occasion and against
// every kept one, of the store and of the file: what audit.Verify does to an export, with places that are exact to a
// segment. Report.Bad and fault integrity say what is wrong. When no checkpoint can be made, because the gate has stopped,
// the newest in the store stands for it.
func (g *Gate) Verify(ctx context.Context) (audit.Report, error) {
	kept, err := g.keptCheckpoints(ctx) // before the end, which then is not older than any of them
	if err != nil {
		return audit.Report{}, err
	}
	end, err := g.endOfLog(ctx)
	if err != nil {
		return audit.Report{}, err
	}
	check := audit.NewChecker(g.cfg.Key, kept)
	for _, head := range end.Shards {
		var bad *audit.Place
		err := g.walk(ctx, head, func(s *audit.Segment) error {
			if bad = check.Segment(s); bad != nil {
				return errFound
			}
			return nil
		})
		if bad != nil {
			return check.Fail(bad)
		}
		if err != nil {
			return audit.Report{}, err
		}
	}
	report, err := check.Finish(&end)
	if err != nil {
		return report, err
	}
	bad, err := g.checkUnsigned(ctx, end)
	if bad != nil {
		return check.Fail(bad)
	}
	return report, err
}

// checkUnsigned looks at what stands behind a checkpoint: nothing, unless the gate has stopped or somebody is writing.
// Nobody has signed it, but its segments must at least agree with their own heads.
func (g *Gate) checkUnsigned(ctx context.Context, end audit.Checkpoint) (*audit.Place, error) {
	heads, err := g.sizes(ctx)
	if err != nil {
		return nil, err
	}
	for _, now := range heads {
		signed := end.Head(now.Shard)
		err := g.checkExtension(ctx, signed, now)
		if fault.CodeOf(err) == api.CodeIntegrity {
			return &audit.Place{Shard: now.Shard, Index: signed.Size, Through: max(signed.Size+1, now.Size) - 1, Problem: fault.MessageOf(err)}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

var errFound = fault.New(api.CodeIntegrity, "a bad place was found")

// Export writes the whole log up to a checkpoint that is made for the occasion, in the form that audit.Verify reads. The
// file is complete only if nil is returned; everything that is written before an error fails to verify.
func (g *Gate) Export(ctx context.Context, w io.Writer) error {
	end, err := g.endOfLog(ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 256<<10)
	x := audit.NewExporter(out)
	for _, head := range end.Shards {
		err := g.walk(ctx, head, func(s *audit.Segment) error {
			index := s.First
			for line := range bytes.SplitSeq(s.Lines, []byte{'\n'}) {
				if err := x.Event(line, s.Shard, index); err != nil {
					return err
				}
				index++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := x.Finish(end); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing the export of the audit log")
	}
	return nil
}

// endOfLog is a checkpoint up to which the log can be read.
func (g *Gate) endOfLog(ctx context.Context) (audit.Checkpoint, error) {
	if g.Err() == nil {
		return g.Checkpoint(ctx)
	}
	e, err := g.readEnds(ctx)
	if err == nil && e.signed.Sequence == 0 {
		err = fault.New(api.CodeIntegrity, "the audit log has no checkpoint that it could be held against").WithNext(evidence)
	}
	return e.signed, err
}

// walk reads a shard's segments up to a head, page by page: copied out of the transaction, so that whoever works on them
// slowly, like a client that reads an export, doesn't hold the database's snapshot.
func (g *Gate) walk(ctx context.Context, head audit.ShardHead, fn func(*audit.Segment) error) error {
	return g.walkFrom(ctx, 0, head, fn)
}

// walkFrom is walk from the segment on that holds event number at.
func (g *Gate) walkFrom(ctx context.Context, at uint64, head audit.ShardHead, fn func(*audit.Segment) error) error {
	for at < head.Size {
		var read []audit.Segment
		q := audit.SegmentQuery{Shard: head.Shard, FromIndex: at, ToIndex: head.Size, Limit: page}
		err := g.segments(ctx, q, func(s *audit.Segment) error {
			read = append(read, copied(s))
			return nil
		})
		if err != nil {
			return err
		}
		for i := range read {
			if err := fn(&read[i]); err != nil {
				return err
			}
			at = max(at+1, read[i].First+uint64(max(read[i].Count, 1)))
		}
		if len(read) == 0 {
			return nil // too short: whoever compares with the head notices
		}
	}
	return nil
}

func copied(s *audit.Segment) audit.Segment {
	c := *s
	c.Lines, c.Edge = bytes.Clone(s.Lines), bytes.Clone(s.Edge)
	return c
}

// keptCheckpoints reads what the store and the file have. One that is not by our key fails: nobody but us writes there.
func (g *Gate) keptCheckpoints(ctx context.Context) ([]audit.Checkpoint, error) {
	var notes []string
	err := g.st.View(ctx, func(tx store.Tx) error {
		notes = nil
		return tx.Checkpoints(ctx, func(c audit.StoredCheckpoint) error {
			notes = append(notes, c.Note)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	g.checkpoints.mu.Lock()
	kept, err := g.checkpoints.file.all(g.cfg.Key)
	g.checkpoints.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		if slices.ContainsFunc(kept, func(c audit.Checkpoint) bool { return c.Note == note }) {
			continue
		}
		c, err := audit.ParseCheckpoint(note, g.cfg.Key)
		if err != nil {
			return nil, fault.Wrap("", err, "reading the checkpoints of the store")
		}
		kept = append(kept, c)
	}
	return kept, nil
}
