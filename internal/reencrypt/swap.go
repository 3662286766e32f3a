package reencrypt

import (
	"context"
	"errors"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// splitInto is how many parts a batch is cut into when one of its rows is held or refused: 4000 rows come down to single
// ones in four steps, each of which waits once at most.
const splitInto = 16

// hopeless is how many rows a database may refuse, without having taken a single one, before the run gives up: a
// constraint that no ciphertext satisfies should be one error, not a million entries of the dead-letter list.
const hopeless = 100

// writer writes batches until there are none.
func (p *pass) writer(ctx context.Context) error {
	w, err := p.work.Target.Writer(ctx)
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // every batch was acknowledged or not before
	s := swapper{work: p.work, writer: w}
	for {
		select {
		case out, ok := <-p.write:
			if !ok {
				return nil
			}
			if err := s.swap(ctx, out.batch, out.result, 0, out.batch.Rows()); err != nil {
				return err
			}
			p.acks.ack(out.result)
			p.freeBatches <- out.batch
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// swapper writes batches, in smaller and smaller parts where rows are held or refused. It belongs to one goroutine.
type swapper struct {
	work    *Work
	writer  Writer
	taken   int64
	refused int64
}

// swap writes rows from up to to. A single row that is held counts as a conflict, a later pass meets it again; one that
// is refused goes to the dead-letter list.
func (s *swapper) swap(ctx context.Context, b *Batch, r *result, from, to int) error {
	n, err := s.writer.Swap(ctx, b, from, to)
	var refusal *Refusal
	switch {
	case err == nil:
		s.taken += int64(n)
		r.counts.Changed += int64(n)
		r.counts.Conflicts += int64(to - from - n)
		s.moved(r, from, to, n)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &refusal):
		if to-from == 1 {
			return s.refuse(b, r, from, refusal)
		}
	case errors.Is(err, ErrContended):
		if to-from == 1 {
			r.counts.Conflicts++
			return nil
		}
	default:
		return err
	}
	for part := max(1, (to-from+splitInto-1)/splitInto); from < to; from += part {
		if err := s.swap(ctx, b, r, from, min(from+part, to)); err != nil {
			return err
		}
	}
	return nil
}

// moved counts from which versions the n rows were moved that were written of those from up to to. Which those are nobody knows
// when it weren't all: at most the others are missing from each version.
func (s *swapper) moved(r *result, from, to, n int) {
	if n == 0 {
		return
	}
	found, columns := map[VersionOf]int64{}, len(s.work.Columns)
	row := make([]VersionOf, 0, columns) // a row counts once, however many of its values stand under one version
	for i := from; i < to; i++ {
		row = row[:0]
		for col, n := range r.was[i*columns : (i+1)*columns] {
			v := VersionOf{s.work.Columns[col].Keys.ID(), n}
			if n != 0 && !slices.Contains(row, v) {
				row = append(row, v)
				found[v]++
			}
		}
	}
	for v, rows := range found {
		r.moved[v] += max(0, rows-int64(to-from-n))
	}
}

func (s *swapper) refuse(b *Batch, r *result, row int, refusal *Refusal) error {
	if s.refused++; s.taken == 0 && s.refused >= hopeless {
		return fault.Newf(api.CodeInvalid, "writing to the dataset: of the first %d rows, none was taken; %s", s.refused, refusal.Reason).
			WithNext("see what the database demands of the column (check constraints, triggers, the width of an index)")
	}
	names := make([][]byte, len(b.Names))
	for i := range names {
		names[i] = b.Names[i].At(row)
	}
	for i, c := range s.work.Columns {
		if b.New[i].Values.IsNull(row) {
			continue // this column was to stay as it is
		}
		r.counts.Failed++
		r.counts.Stuck++
		r.failed = append(r.failed, Failed{Key: keyAt(b.Keys, row), Item: itemText(names), Column: c.Name, Reason: refusal.Reason})
	}
	return nil
}
