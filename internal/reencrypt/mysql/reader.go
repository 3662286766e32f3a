package mysql

import (
	"bytes"
	"context"
	"database/sql/driver"
	"io"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// reader reads pages on a connection of its own. A statement's rows are taken off the wire as they are wanted, so a page
// that is full by bytes leaves the rest of them with the server.
type reader struct {
	*target
	conn *conn

	first, next, find *statement // of pages at the beginning and behind a key, and of single rows

	last    reencrypt.Key // of the last row that was handed out
	limit   int
	rows    driver.Rows // the statement that is being read, nil between two
	taken   int         // its rows so far
	done    bool        // a statement gave fewer rows than it might: the table ends there
	skip    []driver.Value
	args    []driver.NamedValue
	dest    row
	scratch []byte
}

// Reader connects.
func (t *target) Reader(ctx context.Context) (reencrypt.Reader, error) {
	c, err := t.db.connect(ctx, reading)
	if err != nil {
		return nil, err
	}
	return &reader{target: t, conn: c, dest: make(row, len(t.keys)+2*len(t.columns))}, nil
}

// Close ends the connection, in the middle of a statement if need be.
func (r *reader) Close() error {
	r.conn.close()
	return nil
}

// Start begins after a row, or at the first one.
func (r *reader) Start(ctx context.Context, after reencrypt.Key, o reencrypt.ReadOptions) error {
	if err := r.finish(ctx); err != nil {
		return err
	}
	r.limit, r.last, r.done = max(1, o.Rows), nil, false
	if after != nil {
		if err := r.known(ctx, after); err != nil {
			return err
		}
		r.last = bytes.Clone(after)
	}
	return r.prepare(ctx, o)
}

// prepare prepares the statements of pages, which say how many rows, and what needn't come.
func (r *reader) prepare(ctx context.Context, o reencrypt.ReadOptions) (err error) {
	for _, s := range []**statement{&r.first, &r.next, &r.find} {
		(*s).close()
		*s = nil
	}
	skip := make([]bool, len(r.columns))
	r.skip = r.skip[:0]
	for i, c := range r.columns {
		if i < len(o.Skip) && o.Skip[i].Version != 0 {
			skip[i] = true
			text, _ := c.header(o.Skip[i])
			r.skip = append(r.skip, text, text)
		}
	}
	sql := r.selectSQL(skip)
	if r.first, err = r.conn.prepare(ctx, sql+r.order(r.limit)); err != nil {
		return err
	}
	if r.next, err = r.conn.prepare(ctx, sql+" WHERE "+r.after()+r.order(r.limit)); err != nil {
		return err
	}
	r.find, err = r.conn.prepare(ctx, sql+" WHERE "+r.row())
	return err
}

// known refuses a key whose values aren't of the key's types: what the database makes of each must be what it says. To
// compare with anything else would find no row, and look like the end of the table.
func (r *reader) known(ctx context.Context, key reencrypt.Key) error {
	cols, ok := key.Columns(len(r.keys))
	if !ok {
		return errCursor
	}
	var asked []string
	var args []driver.Value
	var want [][]byte
	for i, k := range r.keys {
		v, ok := k.value(cols[i])
		if !ok {
			return errCursor
		}
		if k.kind == kindText || k.kind == kindCast {
			asked, args, want = append(asked, "CAST("+k.parameter()+" AS CHAR)"), append(args, v), append(want, cols[i])
		}
	}
	if len(asked) == 0 {
		return nil
	}
	rows, err := r.conn.query(ctx, "SELECT "+strings.Join(asked, ", "), args...)
	if err != nil {
		return err
	}
	for i, w := range want {
		if rows[0].null(i) || rows[0].text(i) != string(w) {
			return errCursor
		}
	}
	return nil
}

var errCursor = fault.New(api.CodeInvalid, "reading a cursor: it belongs to another key, or the key's type was changed").WithField("cursor")

// Next fills p from the statement that runs, or from a new one.
func (r *reader) Next(ctx context.Context, p *reencrypt.Page) error {
	p.Reset()
	for !r.done {
		if r.rows == nil {
			if err := r.ask(ctx); err != nil {
				return err
			}
		}
		ended, err := r.fill(ctx, p)
		if err != nil {
			return err
		}
		if p.Rows() > 0 {
			r.last = p.Key(p.Rows() - 1)
		}
		if ended {
			r.done = r.taken < r.limit
			if err := r.finish(ctx); err != nil {
				return err
			}
		}
		if p.Rows() > 0 {
			return nil
		}
	}
	return nil
}

// ask sends the statement of the next rows.
func (r *reader) ask(ctx context.Context) (err error) {
	statement := r.first
	r.args = named(r.args[:0], r.skip...)
	if r.last != nil {
		cols, ok := r.last.Columns(len(r.keys))
		if !ok {
			return errCursor
		}
		statement = r.next
		for i := range r.keys {
			for j := range i + 1 {
				v, _ := r.keys[j].value(cols[j])
				r.args = named(r.args, v)
			}
		}
	}
	if r.rows, err = statement.rows(ctx, r.args); err != nil {
		r.rows = nil
		return explain(ctx, err, "reading a page")
	}
	r.taken = 0
	return nil
}

// fill takes rows until the page has its bytes or the statement has no more.
func (r *reader) fill(ctx context.Context, p *reencrypt.Page) (ended bool, err error) {
	for p.Size() < reencrypt.PageBytes {
		switch err := r.rows.Next(r.dest); {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, explain(ctx, err, "reading a page")
		}
		r.taken++
		if err := r.add(p, r.dest); err != nil {
			return false, err
		}
	}
	return false, nil
}

// finish ends the statement that is being read.
func (r *reader) finish(ctx context.Context) error {
	if r.rows == nil {
		return nil
	}
	err := r.rows.Close()
	r.rows = nil
	if err != nil {
		return explain(ctx, err, "reading a page")
	}
	return nil
}

// Find asks for one row after the other: lists of failures are short.
func (r *reader) Find(ctx context.Context, p *reencrypt.Page, keys []reencrypt.Key) error {
	if err := r.finish(ctx); err != nil {
		return err
	}
	p.Reset()
	for _, key := range keys {
		if err := r.known(ctx, key); err != nil {
			return err
		}
		cols, _ := key.Columns(len(r.keys))
		r.args = named(r.args[:0], r.skip...)
		for i, k := range r.keys {
			v, _ := k.value(cols[i])
			r.args = named(r.args, v)
		}
		rows, err := r.find.rows(ctx, r.args)
		if err == nil {
			err = each(rows, func(found row) error { return r.add(p, found) })
		}
		if err != nil {
			return explain(ctx, err, "reading a row")
		}
	}
	return nil
}

// add takes one row over: keys, then for each value whether it was sent, and the value.
func (r *reader) add(p *reencrypt.Page, found row) error {
	for i, k := range r.keys {
		var ok bool
		if r.scratch, ok = k.add(p, i, found[i], r.scratch); !ok {
			return fault.New(api.CodeInternal, "reading a page: a key value isn't of its column's type")
		}
	}
	for i, c := range r.columns {
		at := len(r.keys) + 2*i
		switch v, ok := found[at+1].([]byte); {
		case found.number(at) == current:
			p.Values[i].AddWithout(reencrypt.Current)
		case found.number(at) == large:
			p.Values[i].AddWithout(reencrypt.TooLarge)
		case !ok:
			p.Values[i].AddWithout(reencrypt.Null)
		default:
			p.Values[i].Add(v, c.form)
		}
	}
	return nil
}
