package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// reader reads pages on a connection of its own. A statement's rows are taken off the wire as they are wanted, so a page
// that is full by bytes leaves the rest of them with the server.
type reader struct {
	*target
	conn *pgconn.PgConn

	last   reencrypt.Key // of the last row that was handed out
	limit  int
	rows   *pgconn.ResultReader // the statement that is being read, nil between two
	taken  int                  // its rows so far
	done   bool                 // a statement gave fewer rows than it might: the table ends there
	params [][]byte             // prefixes and marks; a statement that needs a key has it behind them
	oids   []uint32             // of params and key: not every statement mentions every mark
	format []int16

	scratch []byte
}

// Reader connects.
func (t *target) Reader(ctx context.Context) (reencrypt.Reader, error) {
	conn, err := t.db.connect(ctx, pageRead)
	if err != nil {
		return nil, err
	}
	r := &reader{target: t, conn: conn}
	r.setSkip(nil)
	return r, nil
}

// Close ends the connection, in the middle of a statement if need be.
func (r *reader) Close() error { return closeConn(r.conn) }

// setSkip lays out the parameters that stay: what values needn't come, and the marks that stand for them. The prefix of a
// column that skips nothing is another random word.
func (r *reader) setSkip(o *reencrypt.ReadOptions) {
	r.params, r.oids = r.params[:0], r.oids[:0]
	for i, c := range r.columns {
		prefix := mark()
		if o != nil && i < len(o.Skip) && o.Skip[i].Version != 0 {
			if prefix = []byte(o.Skip[i].PrefixText()); c.form == reencrypt.Binary {
				prefix, _ = o.Skip[i].AppendBinary(nil) // never fails
			}
		}
		r.params, r.oids = append(r.params, prefix), append(r.oids, c.oid())
	}
	current, large := mark(), mark()
	r.params = append(r.params, current, large, current, large)
	r.oids = append(r.oids, oidText, oidText, oidBytea, oidBytea)
	for _, k := range r.keys {
		r.oids = append(r.oids, k.oid)
	}
	r.format = make([]int16, len(r.params)+len(r.keys))
	for i := range r.format {
		r.format[i] = binaryFormat
	}
}

// mark is a word that no value of anybody's is.
func mark() []byte { return []byte("keyturn:" + rand.Text() + rand.Text()) }

// Start begins after a row, or at the first one. Nothing is asked of the database yet, except whether it knows the key.
func (r *reader) Start(ctx context.Context, after reencrypt.Key, o reencrypt.ReadOptions) error {
	if err := r.finish(ctx); err != nil {
		return err
	}
	r.setSkip(&o)
	r.limit, r.last, r.done = max(1, o.Rows), nil, false
	if after == nil {
		return nil
	}
	cols, ok := after.Columns(len(r.keys))
	if !ok {
		return errCursor
	}
	casts := make([]string, len(r.keys))
	for i, k := range r.keys {
		casts[i] = fmt.Sprintf("$%d::%s", i+1, k.element)
	}
	sql := "SELECT " + strings.Join(casts, ", ")
	result := r.conn.ExecParams(ctx, sql, cols, nil, r.format[:len(cols)], nil).Read()
	var pg *pgconn.PgError
	if errors.As(result.Err, &pg) && (class(pg.Code) == "22" || pg.Code == "08P01") { // not the bytes of that type
		return errCursor
	}
	if result.Err != nil {
		return explain(ctx, result.Err, "looking at a cursor")
	}
	r.last = bytes.Clone(after)
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
		ended, err := r.fill(p)
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

// fill takes rows until the page has its bytes or the statement has no more.
func (r *reader) fill(p *reencrypt.Page) (ended bool, err error) {
	for p.Size() < reencrypt.PageBytes {
		if !r.rows.NextRow() {
			return true, nil
		}
		r.taken++
		if err := r.add(p, r.rows.Values()); err != nil {
			return false, err
		}
	}
	return false, nil
}

// ask sends the statement of the next rows.
func (r *reader) ask(ctx context.Context) error {
	params := r.params
	if r.last != nil {
		cols, ok := r.last.Columns(len(r.keys))
		if !ok {
			return errCursor
		}
		params = append(params[:len(r.params):len(r.params)], cols...)
	}
	r.rows = r.conn.ExecParams(ctx, r.pageSQL(r.last != nil, r.limit), params, r.oids[:len(params)], r.format[:len(params)], []int16{binaryFormat})
	r.taken = 0
	return nil
}

// finish reads what is left of the statement, its error above all.
func (r *reader) finish(ctx context.Context) error {
	if r.rows == nil {
		return nil
	}
	_, err := r.rows.Close()
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
	sql := r.findSQL()
	for _, key := range keys {
		cols, ok := key.Columns(len(r.keys))
		if !ok {
			return errCursor
		}
		params := append(r.params[:len(r.params):len(r.params)], cols...)
		rows := r.conn.ExecParams(ctx, sql, params, r.oids[:len(params)], r.format[:len(params)], []int16{binaryFormat})
		for rows.NextRow() {
			if err := r.add(p, rows.Values()); err != nil {
				return err
			}
		}
		if _, err := rows.Close(); err != nil {
			return explain(ctx, err, "reading a row")
		}
	}
	return nil
}

// add takes one row over: keys, texts of keys, values.
func (r *reader) add(p *reencrypt.Page, row [][]byte) error {
	asked := len(r.keys)
	for i, k := range r.keys {
		raw := row[i]
		p.Keys[i].Append(raw)
		if k.text == nil {
			p.Names[i].Append(row[asked])
			asked++
			continue
		}
		text, ok := k.text(r.scratch[:0], raw)
		if !ok {
			return fault.New(api.CodeInternal, "reading a page: a key value isn't of its column's type")
		}
		r.scratch = text
		p.Names[i].Append(text)
	}
	for i := range r.columns {
		r.addValue(&p.Values[i], row[asked+i], i)
	}
	return nil
}

func (r *reader) addValue(c *reencrypt.Column, v []byte, i int) {
	current, large := r.params[len(r.columns)], r.params[len(r.columns)+1]
	switch {
	case v == nil:
		c.AddWithout(reencrypt.Null)
	case len(v) == len(current) && bytes.Equal(v, current):
		c.AddWithout(reencrypt.Current)
	case len(v) == len(large) && bytes.Equal(v, large):
		c.AddWithout(reencrypt.TooLarge)
	default:
		c.Add(v, r.columns[i].form)
	}
}
