package mysql_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// benchRows is the size of the table, 100,000 unless KEYTURN_BENCH_ROWS says otherwise.
func benchRows(b *testing.B) int {
	if n, err := strconv.Atoi(os.Getenv("KEYTURN_BENCH_ROWS")); err == nil && n > 0 {
		return n
	}
	return 100000
}

// BenchmarkReencryptMariaDB is S5: a whole run, unthrottled, with its final count of the table, against one UPDATE that
// really changes the bytes of every row. Both work on the same rows in the same run, after what went before is purged.
func BenchmarkReencryptMariaDB(b *testing.B) {
	server, rows := mariatest.Own(b, mariatest.Options{Settings: map[string]string{"innodb-buffer-pool-size": "1G", "innodb-log-file-size": "1G"}}), benchRows(b)
	app := on(b, server)
	app.Exec(b, "CREATE TABLE patients (id bigint PRIMARY KEY, ssn text NOT NULL)",
		fmt.Sprintf("INSERT INTO patients SELECT seq, RPAD(MD5(seq), 100, MD5(seq + 1)) FROM seq_1_to_%d", rows))
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	db := open(b, app.URL)
	columns := map[string]*connectortest.KeySet{"ssn": keys}
	connectortest.MustFinish(b, connectortest.Work(b, db, "patients", columns, reencrypt.KindEncrypt))

	settle := func() {
		app.Exec(b, "SET GLOBAL innodb_max_purge_lag_wait = 0", "SET GLOBAL innodb_log_checkpoint_now = ON")
	}
	for b.Loop() {
		settle()
		start := time.Now()
		app.Exec(b, "UPDATE patients SET ssn = CONCAT('kt0.', SUBSTR(ssn, 5))")
		bare := time.Since(start)
		app.Exec(b, "UPDATE patients SET ssn = CONCAT('kt1.', SUBSTR(ssn, 5))")
		settle()
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
