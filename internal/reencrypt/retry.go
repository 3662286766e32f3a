package reencrypt

import (
	"context"
	"time"
)

// findAtOnce is how many rows of a dead-letter list are looked at together.
const findAtOnce = 200

// Retry takes up rows that failed before, found by their keys, in front of a new count of the whole table: where only
// they were left, the run ends without another walk. Rows that are gone by now are done. The state must be new; what fails
// again is reported as by Advance.
func (w Work) Retry(ctx context.Context, s *State, keys []Key, save Save) error {
	w = w.withDefaults()
	r, err := w.Target.Reader(ctx)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it has read all the same
	if err := r.Start(ctx, nil, ReadOptions{Rows: 1, Skip: w.skip()}); err != nil {
		return err
	}
	writer, err := w.Target.Writer(ctx)
	if err != nil {
		return err
	}
	defer writer.Close() //nolint:errcheck // every row was acknowledged or not before

	swapper := swapper{work: &w, writer: writer, taken: 1} // these rows say nothing about all the others
	crypto := newCrypto(&w)
	defer crypto.wipe()
	pace := pace{rate: w.Rate}
	page, batch := NewPage(len(w.PK), len(w.Columns)), NewBatch(len(w.PK), len(w.Columns))
	for len(keys) > 0 && ctx.Err() == nil {
		n := min(len(keys), findAtOnce)
		if err := r.Find(ctx, page, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
		res := &result{}
		if err := crypto.page(ctx, page, batch, res); err != nil {
			return err
		}
		if err := swapper.swap(ctx, batch, res, 0, batch.Rows()); err != nil {
			return err
		}
		s.Counts.add(res.counts, false)
		s.This.add(res.counts, false)
		if err := save(ctx, s, &Progress{Counts: res.counts, Failed: res.failed, Moved: res.moved}); err != nil {
			return err
		}
		if err := pace.spend(ctx, batch.Rows(), 0); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.Pass, s.Sweep, s.NotBefore = 1, true, time.Time{}
	return save(ctx, s, nil)
}
