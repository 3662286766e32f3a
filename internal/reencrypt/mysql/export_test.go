package mysql

import "github.com/keyturn/keyturn/internal/reencrypt"

// Statements are those of a page behind a key, of taking rows and of writing them, and of how many rows each is.
func Statements(of reencrypt.Target) (page, lock, swap string, lockN, swapN int) {
	t := of.(*target)
	return t.selectSQL(make([]bool, len(t.columns))) + " WHERE " + t.after() + t.order(100), t.lockSQL(lockRows), t.swapSQL(swapRows), lockRows, swapRows
}
