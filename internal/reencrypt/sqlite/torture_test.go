package sqlite_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestTorture has an application write all the while, in the same process, with and without a write-ahead log (promises P5
// and P6).
func TestTorture(t *testing.T) {
	for name, pragmas := range map[string][]string{"wal": {"journal_mode(WAL)", "synchronous(NORMAL)"}, "delete": {"journal_mode(DELETE)", "synchronous(OFF)"}} {
		t.Run(name, func(t *testing.T) { connectortest.Torture(t, harness(pragmas...), 5000) })
	}
}
