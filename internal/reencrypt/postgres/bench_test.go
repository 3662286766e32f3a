package postgres_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// benchRows is the size of the table, 100,000 unless KEYTURN_BENCH_ROWS says otherwise (SPEED.md: 1,000,000).
func benchRows(b *testing.B) int {
	if n, err := strconv.Atoi(os.Getenv("KEYTURN_BENCH_ROWS")); err == nil && n > 0 {
		return n
	}
	return 100000
}

// BenchmarkReencryptPostgres is S5: a whole run, unthrottled, with its final count of the table, against one UPDATE that
// really changes the bytes of every row. Both work on the same rows in the same run; before each, the table is vacuumed,
// so that neither pays for the dead rows of the other.
func BenchmarkReencryptPostgres(b *testing.B) {
	server, rows := pgtest.Start(b), benchRows(b)
	url := server.Database(b)
	exec := func(statements ...string) {
		b.Helper()
		if err := server.Exec(b.Context(), url, statements...); err != nil {
			b.Fatal(err)
		}
	}
	exec("CREATE TABLE patients (id bigint PRIMARY KEY, ssn text NOT NULL)",
		fmt.Sprintf("INSERT INTO patients SELECT i, rpad(md5(i::text), 100, md5((i+1)::text)) FROM generate_series(1, %d) i", rows))
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	db := open(b, url)
	columns := map[string]*connectortest.KeySet{"ssn": keys}
	connectortest.MustFinish(b, connectortest.Work(b, db, "patients", columns, reencrypt.KindEncrypt))

	fresh := func() { exec("VACUUM FULL ANALYZE patients", "CHECKPOINT") }
	for b.Loop() {
		fresh()
		start := time.Now()
		exec("UPDATE patients SET ssn = 'kt0.' || substr(ssn, 5)", "UPDATE patients SET ssn = 'kt1.' || substr(ssn, 5) WHERE id = 0")
		bare := time.Since(start)
		fresh()
		exec("UPDATE patients SET ssn = 'kt1.' || substr(ssn, 5)")
		fresh()
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
