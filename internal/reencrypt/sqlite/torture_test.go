package sqlite_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
)

// TestTorture has an application write all the while, in the same process, with and without a write-ahead log.
func TestTorture(t *testing.T) {
	for name, pragmas := range map[string][]string{"wal": {"journal_mode(WAL)", "synchronous(NORMAL)"}, "delete": {"journal_mode(DELETE)", "synchronous(OFF)"}} {
		t.Run(name, func(t *testing.T) {
			connectortest.Torture(t, connectortest.Harness{
				Driver: sqlite.Driver{},
				Fresh:  func(tb testing.TB) connectortest.Database { return fresh(tb, pragmas...) },
				Text:   "TEXT",
			}, 5000)
		})
	}
}
