package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// writer writes pages on a connection of its own.
type writer struct {
	*target
	conn   *pgconn.PgConn
	swap   string   // name of the prepared statement; empty before the first page
	params [][]byte // one buffer per array, used again
	format []int16
}

// Writer connects.
func (t *target) Writer(ctx context.Context) (reencrypt.Writer, error) {
	conn, err := t.db.connect(ctx, pageWrite)
	if err != nil {
		return nil, err
	}
	n := len(t.keys) + 2*len(t.columns)
	w := &writer{target: t, conn: conn, params: make([][]byte, n), format: make([]int16, n)}
	for i := range w.format {
		w.format[i] = binaryFormat
	}
	return w, nil
}

// Close ends the connection.
func (w *writer) Close() error { return closeConn(w.conn) }

// Swap writes the rows in one statement, which is its own transaction.
func (w *writer) Swap(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	for i, k := range w.keys {
		w.params[i] = appendArray(w.params[i][:0], k.oid, &b.Keys[i], from, to)
	}
	for i, c := range w.columns {
		at := len(w.keys) + 2*i
		w.params[at] = appendArray(w.params[at][:0], c.oid(), &b.Old[i].Values, from, to)
		w.params[at+1] = appendArray(w.params[at+1][:0], c.oid(), &b.New[i].Values, from, to)
	}
	if err := w.prepare(ctx); err != nil {
		return 0, explainSwap(ctx, err)
	}
	tag, err := w.conn.ExecPrepared(ctx, w.swap, w.params, w.format, nil).Close()
	if err != nil {
		return 0, explainSwap(ctx, err)
	}
	return int(tag.RowsAffected()), nil
}

// prepare has the statement parsed once. From its sixth time on PostgreSQL plans it without its values: a plan that is made for
// them copies the arrays of a page into itself, several times, which was a fifth of the server's work. The name is nobody else's, so
// that through a pooler that mixes sessions up a page meets no statement rather than another table's; and it is another one
// each time, since one whose answer was lost may be there.
func (w *writer) prepare(ctx context.Context) error {
	if w.swap != "" {
		return nil
	}
	name := "keyturn_" + rand.Text()
	if _, err := w.conn.Prepare(ctx, name, w.swapSQL(), nil); err != nil {
		return err
	}
	w.swap = name
	return nil
}

// appendArray appends a one-dimensional array in binary form (array_recv of PostgreSQL): dimensions, whether there are
// NULLs, the elements' type, length, lower bound, and then the elements as Cells holds them.
func appendArray(dst []byte, element uint32, c *reencrypt.Cells, from, to int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, 1)
	dst = binary.BigEndian.AppendUint32(dst, 1) // "may hold NULLs": only a hint
	dst = binary.BigEndian.AppendUint32(dst, element)
	dst = binary.BigEndian.AppendUint32(dst, uint32(to-from))
	dst = binary.BigEndian.AppendUint32(dst, 1)
	return append(dst, c.Range(from, to)...)
}
