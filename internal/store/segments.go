package store

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/audit"
)

// Sizes of the two steps of Segments: places picked at a time, and segments read at a time.
const (
	pickSize = 1024
	readSize = 16
)

// Segments implements audit.Tx. A query with conditions works in two steps, because the lines of a segment lie beside its
// small columns and are a thousand times as long: places are picked from the narrow index audit_times alone, then the
// segments that were picked are read. Without conditions it is one walk along the table.
func (t *txn) Segments(ctx context.Context, q audit.SegmentQuery, fn func(*audit.Segment) error) error {
	c, err := t.segmentConditions(ctx, q)
	if err != nil {
		return err
	}
	if q.Order == audit.ByShard && q.Mask == 0 && q.Since.IsZero() && q.Until.IsZero() {
		return t.readSegments(ctx, q, c, fn)
	}
	for left := q.Limit; ; {
		size := pickSize
		if q.Limit > 0 {
			size = min(size, left)
		}
		picked, err := t.pickSegments(ctx, q, c, size)
		if err != nil {
			return err
		}
		for some := range slices.Chunk(picked, readSize) {
			if err := t.readSegments(ctx, q, placesIn(some), fn); err != nil {
				return err
			}
		}
		if left -= len(picked); len(picked) < size || left == 0 {
			return nil
		}
		c.from(q.Order, picked[len(picked)-1])
	}
}

// spot is what the orders of segments are made of.
type spot struct{ firstTime, place int64 }

// pickSegments finds the next so many segments without reading them.
func (t *txn) pickSegments(ctx context.Context, q audit.SegmentQuery, c *conditions, size int) ([]spot, error) {
	return all(ctx, t, "searching the audit log", func(row scanner) (s spot, err error) {
		return s, row.Scan(&s.firstTime, &s.place)
	}, `SELECT first_time, place FROM audit_segments`+c.where()+orderOf(q.Order)+` LIMIT `+strconv.Itoa(size), slices.Clone(c.args)...)
}

// placesIn is the condition of being one of some spots.
func placesIn(some []spot) *conditions {
	marks, args := make([]string, len(some)), make([]any, len(some))
	for i, s := range some {
		marks[i], args[i] = "$%d", s.place
	}
	c := &conditions{}
	c.add(`place IN (`+strings.Join(marks, ", ")+`)`, args...)
	return c
}

// readSegments reads whole segments in the order of the query.
func (t *txn) readSegments(ctx context.Context, q audit.SegmentQuery, c *conditions, fn func(*audit.Segment) error) error {
	const doing = "reading the audit log"
	columns, limit := segmentColumns, ""
	if q.NoLines {
		columns = strings.TrimSuffix(columns, ", lines")
	}
	if q.Limit > 0 {
		limit = ` LIMIT ` + strconv.Itoa(q.Limit)
	}
	return t.each(ctx, doing, func(rows *sql.Rows) error {
		s, err := readSegment(rows, q.NoLines)
		if err != nil {
			return t.fail(ctx, err, doing)
		}
		return fn(s)
	}, `SELECT `+columns+` FROM audit_segments`+c.where()+orderOf(q.Order)+limit, slices.Clone(c.args)...)
}

func readSegment(row scanner, noLines bool) (*audit.Segment, error) {
	var s audit.Segment
	var place int64
	var edge, lines sql.RawBytes // valid until the next row, which is what fn was promised
	dest := []any{&place, &s.Seq, &s.Epoch, &s.Count, into{&s.FirstTime}, into{&s.LastTime}, &s.Mask, fixed{s.Root[:]}, &edge, &s.Nonce, &lines}
	if noLines {
		dest = dest[:len(dest)-1]
	}
	if err := row.Scan(dest...); err != nil {
		return nil, err
	}
	s.Shard, s.First = int(place>>indexBits), uint64(place)&maxIndex
	s.Edge, s.Lines = edge, lines
	return &s, nil
}
