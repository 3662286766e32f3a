package sqlite_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// benchRows is the size of the table, 100,000 unless KEYTURN_BENCH_ROWS says otherwise (SPEED.md: 300,000).
func benchRows(b *testing.B) int {
	if n, err := strconv.Atoi(os.Getenv("KEYTURN_BENCH_ROWS")); err == nil && n > 0 {
		return n
	}
	return 100000
}

// BenchmarkReencryptSQLite is S5 on SQLite: a whole run, unthrottled, with its final count of the table, against one UPDATE
// that really changes the bytes of every row (SQLite doesn't write a cell whose bytes are the same). Both work on the same
// rows in the same run, from an empty write-ahead log, on connections whose commits are on disk.
func BenchmarkReencryptSQLite(b *testing.B) {
	rows := benchRows(b)
	app := fresh(b, "journal_mode(WAL)", "synchronous(FULL)")
	app.Exec(b, "CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT NOT NULL)",
		fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "+
			"INSERT INTO patients SELECT i, hex(randomblob(16)) || printf('%%068d', i) FROM n", rows))
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	db := open(b, app.URL)
	columns := map[string]*connectortest.KeySet{"ssn": keys}
	connectortest.MustFinish(b, connectortest.Work(b, db, "patients", columns, reencrypt.KindEncrypt))

	empty := func() { app.Exec(b, "PRAGMA wal_checkpoint(TRUNCATE)") }
	for b.Loop() {
		empty()
		start := time.Now()
		app.Exec(b, "UPDATE patients SET ssn = 'kt0.' || substr(ssn, 5)")
		bare := time.Since(start)
		app.Exec(b, "UPDATE patients SET ssn = 'kt1.' || substr(ssn, 5)")
		empty()
		keys.Rotate()
		start = time.Now()
		counts := connectortest.MustFinish(b, connectortest.Work(b, db, "patients", columns, reencrypt.KindReencrypt))
		ours := time.Since(start)
		if counts.Changed != int64(rows) {
			b.Fatalf("moved %d of %d rows", counts.Changed, rows)
		}
		b.ReportMetric(float64(rows)/ours.Seconds(), "rows/s")
		b.ReportMetric(float64(rows)/bare.Seconds(), "bare-rows/s")
		b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
		b.Logf("%d rows: keyturn %.0f rows/s, one UPDATE %.0f rows/s, ratio %.2f", rows,
			float64(rows)/ours.Seconds(), float64(rows)/bare.Seconds(), bare.Seconds()/ours.Seconds())
	}
}
