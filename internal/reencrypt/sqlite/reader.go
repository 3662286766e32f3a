package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"io"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// reader reads pages on a connection of its own. Between two calls no statement is open and no lock is held.
type reader struct {
	*target
	conn *conn

	first, next *statement // the first page, and the one after a cursor
	skip        []envelope.Header
	last        reencrypt.Key // of the last row that was handed out
	limit       int
	done        bool // a statement gave fewer rows than it might: the table ends there

	args    []driver.NamedValue
	row     row
	scratch []byte
}

// Reader connects.
func (t *target) Reader(ctx context.Context) (reencrypt.Reader, error) {
	c, err := t.db.connect(ctx, reading)
	if err != nil {
		return nil, err
	}
	return &reader{target: t, conn: c, limit: 1, row: make(row, len(t.keys)+len(t.columns))}, nil
}

// Close ends the connection.
func (r *reader) Close() error {
	r.first.close()
	r.next.close()
	r.first, r.next = nil, nil
	return r.conn.close()
}

var errCursor = fault.New(api.CodeInvalid, "reading a cursor: it belongs to another key").WithField("cursor")

// Start prepares the statements of this walk.
func (r *reader) Start(ctx context.Context, after reencrypt.Key, o reencrypt.ReadOptions) (err error) {
	if after != nil {
		if _, ok := keyValues(after, len(r.keys)); !ok {
			return errCursor
		}
	}
	r.first.close()
	r.next.close()
	r.skip = o.Skip
	if r.first, err = r.conn.prepare(ctx, r.pageSQL(false, o.Skip)); err != nil {
		return err
	}
	if r.next, err = r.conn.prepare(ctx, r.pageSQL(true, o.Skip)); err != nil {
		return err
	}
	r.limit, r.last, r.done = max(1, o.Rows), bytes.Clone(after), false
	return nil
}

// Next takes one page, waiting for an application that holds the whole file.
func (r *reader) Next(ctx context.Context, p *reencrypt.Page) error {
	p.Reset()
	if r.done || r.next == nil {
		return nil
	}
	return patiently(ctx, r.db.session.StatementTimeout, func() error {
		p.Reset()
		return r.page(ctx, p)
	})
}

func (r *reader) page(ctx context.Context, p *reencrypt.Page) error {
	s := r.first
	r.args = r.args[:0]
	if r.last != nil {
		s = r.next
		cols, ok := keyValues(r.last, len(r.keys))
		if !ok {
			return errCursor
		}
		r.args = named(r.args, cols...)
	}
	r.args = append(r.args, driver.NamedValue{Ordinal: len(r.args) + 1, Value: int64(r.limit)})
	rows, err := s.rowsWithin(ctx, r.db.session.StatementTimeout, r.args)
	if err != nil {
		return err
	}
	full, err := r.fill(ctx, rows, p)
	if closeErr := rows.Close(); err == nil && closeErr != nil {
		err = explain(ctx, closeErr, "reading a page", r.db.path)
	}
	if err != nil {
		return err
	}
	r.done = !full
	if p.Rows() > 0 {
		r.last = p.Key(p.Rows() - 1)
	}
	return nil
}

// fill takes rows until the page has its bytes or its rows, or there are no more.
func (r *reader) fill(ctx context.Context, rows driver.Rows, p *reencrypt.Page) (full bool, err error) {
	for p.Size() < reencrypt.PageBytes {
		switch err := rows.Next(r.row); {
		case err == io.EOF:
			return p.Rows() >= r.limit, nil
		case err != nil:
			return false, explain(ctx, err, "reading a page", r.db.path)
		}
		if err := r.add(p); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Find asks for one row after the other: lists of failures are short.
func (r *reader) Find(ctx context.Context, p *reencrypt.Page, keys []reencrypt.Key) error {
	p.Reset()
	s, err := r.conn.prepare(ctx, r.findSQL(r.skip))
	if err != nil {
		return err
	}
	defer s.close()
	for _, key := range keys {
		cols, ok := keyValues(key, len(r.keys))
		if !ok {
			return errCursor
		}
		err := patiently(ctx, r.db.session.StatementTimeout, func() error { return r.find(ctx, s, cols, p) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) find(ctx context.Context, s *statement, cols []driver.Value, p *reencrypt.Page) error {
	r.args = r.appendMatch(r.args[:0], cols)
	rows, err := s.rowsWithin(ctx, r.db.session.StatementTimeout, r.args)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // it says again what Next said
	switch err := rows.Next(r.row); {
	case err == io.EOF:
		return nil
	case err != nil:
		return explain(ctx, err, "reading a row", r.db.path)
	}
	return r.add(p)
}

// appendMatch appends the parameters of matchSQL.
func (t *target) appendMatch(args []driver.NamedValue, cols []driver.Value) []driver.NamedValue {
	for i, k := range t.keys {
		for range k.params() {
			args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: cols[i]})
		}
	}
	return args
}

// add takes one row over: keys, their texts, values.
func (r *reader) add(p *reencrypt.Page) error {
	for i, k := range r.keys {
		key, ok := appendKey(r.scratch[:0], r.row[i])
		if !ok {
			return fault.New(api.CodeInternal, "reading a page: a key value is NULL")
		}
		p.Keys[i].Append(key)
		r.scratch = appendName(key[:0], r.row[i], k.affinity)
		p.Names[i].Append(r.scratch)
	}
	for i, v := range r.row[len(r.keys):] {
		r.addValue(&p.Values[i], v)
	}
	return nil
}

func (r *reader) addValue(c *reencrypt.Column, v driver.Value) {
	switch v := v.(type) {
	case string:
		r.scratch = append(r.scratch[:0], v...)
		if !utf8.Valid(r.scratch) && !envelope.LooksLikeCiphertext(r.scratch) {
			c.AddWithout(reencrypt.Unsupported) // it could be sealed, but decrypting wouldn't take it for text
			return
		}
		c.Add(r.scratch, reencrypt.Text)
	case []byte:
		c.Add(v, reencrypt.Binary)
	case int64:
		c.AddWithout(forms[v])
	default:
		c.AddWithout(reencrypt.Null)
	}
}

// forms are what the marks of projection mean.
var forms = [...]reencrypt.Form{markUnsupported: reencrypt.Unsupported, markCurrent: reencrypt.Current, markTooLarge: reencrypt.TooLarge}
