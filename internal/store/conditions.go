package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/audit"
)

// conditions collects the terms of a WHERE with their arguments.
type conditions struct {
	terms []string
	args  []any
}

// add adds a term; each %d in it becomes the number of the next argument.
func (c *conditions) add(term string, args ...any) {
	numbers := make([]any, len(args))
	for i := range args {
		numbers[i] = len(c.args) + i + 1
	}
	c.terms = append(c.terms, fmt.Sprintf(term, numbers...))
	c.args = append(c.args, args...)
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// orderOf is the ORDER BY of an Order. A place is ascending in shard and sequence.
func orderOf(o audit.Order) string {
	switch o {
	case audit.Oldest:
		return ` ORDER BY first_time, place`
	case audit.Newest:
		return ` ORDER BY first_time DESC, place DESC`
	}
	return ` ORDER BY place`
}

func (t *txn) segmentConditions(ctx context.Context, q audit.SegmentQuery) (*conditions, error) {
	c := &conditions{}
	if q.Shard != audit.AnyShard {
		if err := t.shardConditions(ctx, c, q); err != nil {
			return nil, err
		}
	}
	if q.Shard == audit.AnyShard && q.FromIndex > 0 {
		c.add(`(place %% `+indexModulus+`) + count > $%d`, q.FromIndex)
	}
	if q.Shard == audit.AnyShard && q.ToIndex > 0 {
		c.add(`(place %% `+indexModulus+`) < $%d`, q.ToIndex)
	}
	if !q.Since.IsZero() {
		c.add(`last_time >= $%d`, q.Since)
	}
	if !q.Until.IsZero() {
		c.add(`first_time < $%d`, q.Until)
	}
	if q.Mask != 0 {
		c.add(`mask & $%d = $%d`, q.Mask, q.Mask)
	}
	return c, t.afterCondition(ctx, c, q)
}

const indexModulus = "17592186044416" // 1 << indexBits

// shardConditions bounds the places of one shard. The segment that holds FromIndex is found by its place.
func (t *txn) shardConditions(ctx context.Context, c *conditions, q audit.SegmentQuery) error {
	low, err := placeOf(q.Shard, 0)
	if err != nil {
		return err
	}
	from, to := low, low+maxIndex
	if q.FromIndex > 0 {
		if from, err = t.placeHolding(ctx, low, q.FromIndex); err != nil {
			return err
		}
	}
	if q.ToIndex > 0 && q.ToIndex <= maxIndex {
		to = low + int64(q.ToIndex) - 1
	}
	c.add(`place >= $%d AND place <= $%d`, from, to)
	return nil
}

// placeHolding is the place of the segment that holds the event of an index, or of the next one when no segment does.
func (t *txn) placeHolding(ctx context.Context, low int64, index uint64) (place int64, err error) {
	wanted := low + int64(min(index, maxIndex))
	var count int64
	err = t.one(ctx, errNoSegment, "finding an event of the audit log", []any{&place, &count},
		`SELECT place, count FROM audit_segments WHERE place >= $1 AND place <= $2 ORDER BY place DESC LIMIT 1`, low, wanted)
	if err == errNoSegment || err == nil && place+count <= wanted {
		return wanted, nil
	}
	return place, err
}

// afterCondition skips what comes up to and with q.After.
func (t *txn) afterCondition(ctx context.Context, c *conditions, q audit.SegmentQuery) error {
	if q.Order == audit.ByShard || q.After == (audit.Position{}) {
		return nil
	}
	low, err := placeOf(q.After.Shard, 0)
	if err != nil {
		return err
	}
	var place int64
	err = t.one(ctx, errNoSegment, "finding a page of the audit log", []any{&place},
		`SELECT place FROM audit_segments WHERE first_time = $1 AND place >= $2 AND place <= $3 AND seq = $4`,
		q.After.FirstTime, low, low+maxIndex, q.After.Seq)
	if err == errNoSegment {
		return notFound("page")
	}
	if err != nil {
		return err
	}
	c.from(q.Order, spot{micros(q.After.FirstTime), place})
	return nil
}

// from adds the condition of coming after a spot.
func (c *conditions) from(o audit.Order, s spot) {
	switch o {
	case audit.Oldest:
		c.add(`first_time >= $%d AND (first_time > $%d OR place > $%d)`, s.firstTime, s.firstTime, s.place)
	case audit.Newest:
		c.add(`first_time <= $%d AND (first_time < $%d OR place < $%d)`, s.firstTime, s.firstTime, s.place)
	default:
		c.add(`place > $%d`, s.place)
	}
}
