package postgres

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// writer writes pages on a connection of its own.
type writer struct {
	*target
	conn     *pgconn.PgConn
	prepared bool
	params   [][]byte // one buffer per array, used again
	format   []int16
}

// swapName is the statement of Swap on a writer's connection. It is planned once and without its values (see settings): a
// plan that is made for them copies the arrays of a page into itself, several times.
const swapName = "keyturn_swap"

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
	if !w.prepared {
		if _, err := w.conn.Prepare(ctx, swapName, w.swapSQL(), nil); err != nil {
			return 0, explainSwap(ctx, err)
		}
		w.prepared = true
	}
	tag, err := w.conn.ExecPrepared(ctx, swapName, w.params, w.format, nil).Close()
	if err != nil {
		return 0, explainSwap(ctx, err)
	}
	return int(tag.RowsAffected()), nil
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
