package mysql

import (
	"context"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Statements are those of a page behind a key, of taking rows and of writing them, and of how many rows each is.
func Statements(of reencrypt.Target) (page, lock, swap string, lockN, swapN int) {
	t := of.(*target)
	return t.selectSQL(make([]bool, len(t.columns))) + " WHERE " + t.after() + t.order(100), t.lockSQL(lockRows), t.swapSQL(swapRows), lockRows, swapRows
}

// Begin is the first half of Swap: the rows are taken and nothing is written yet. On a server that is set up as MySQL has to
// be, which knows no limit for idle transactions.
func Begin(ctx context.Context, of reencrypt.Writer, b *reencrypt.Batch, asOnMySQL bool) error {
	w := of.(*writer)
	if asOnMySQL {
		w.patience = true
		if err := w.conn.exec(ctx, "SET SESSION idle_transaction_timeout = 0"); err != nil {
			return err
		}
	}
	return w.begin(ctx, b, 0, b.Rows())
}
