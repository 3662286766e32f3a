package postgres_test

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestPgbench encrypts and re-encrypts a column of pgbench_accounts, in the tables that pgbench made itself, while pgbench
// runs its own load (TPC-B) on the same rows. pgbench must not meet a single error; its books must balance, which they
// don't if one of its updates is lost; and every value must open.
func TestPgbench(t *testing.T) {
	server := pgtest.Start(t)
	d := fresh(t)
	server.Pgbench(t, d.URL, "-i", "-q", "-s", "1")
	d.Exec(t, "ALTER TABLE pgbench_accounts ADD COLUMN note text", "UPDATE pgbench_accounts SET note = 'note ' || aid WHERE aid % 2 = 0",
		"VACUUM ANALYZE pgbench_accounts")

	load, err := server.PgbenchCommand(t.Context(), d.URL, "-c", "4", "-T", "3600", "--max-tries=1", "-P", "1")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	load.Stdout, load.Stderr = &said, &said
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- load.Wait() }()

	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	db := openAs(t, d.URL, patient)
	run := func(kind reencrypt.Kind, rate float64) reencrypt.Counts {
		w := connectortest.Work(t, db, "pgbench_accounts", map[string]*connectortest.KeySet{"note": keys}, kind)
		w.Rate = rate
		return connectortest.MustFinish(t, w)
	}
	encrypted := run(reencrypt.KindEncrypt, 0)
	keys.Rotate()
	moved := run(reencrypt.KindReencrypt, 30000)
	keys.Rotate()
	again := run(reencrypt.KindReencrypt, 0)
	verified := run(reencrypt.KindVerify, 0)

	select {
	case err := <-stopped:
		t.Fatalf("pgbench gave up: %v\n%s", err, said.String())
	default:
	}
	if err := load.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-stopped // interrupted, so its exit status says nothing
	if text := said.String(); strings.Contains(text, "aborted") || strings.Contains(text, "ERROR") || strings.Contains(text, "deadlock") {
		t.Errorf("pgbench met errors:\n%s", text)
	}
	// One statement, one snapshot: a transaction that the interrupt left in flight may still commit.
	var sums []string
	for _, v := range d.Rows(t, `SELECT (SELECT sum(abalance) FROM pgbench_accounts)::text, (SELECT sum(bbalance) FROM pgbench_branches)::text,
		(SELECT sum(tbalance) FROM pgbench_tellers)::text, (SELECT sum(delta) FROM pgbench_history)::text`)[0] {
		sums = append(sums, string(v))
	}
	if sums[0] != sums[1] || sums[0] != sums[2] || sums[0] != sums[3] {
		t.Errorf("pgbench's books don't balance: %v", sums)
	}
	history, err := strconv.Atoi(string(d.Rows(t, "SELECT count(*) FROM pgbench_history")[0][0]))
	if err != nil || history == 0 {
		t.Errorf("pgbench has done nothing: %d, %v", history, err)
	}
	if verified.Opened != 50000 || verified.Null != 50000 || encrypted.Changed != 50000 || moved.Changed != 50000 || again.Changed != 50000 {
		t.Errorf("encrypted %+v, moved %+v, moved again %+v, verified %+v", encrypted, moved, again, verified)
	}
	for _, row := range d.Rows(t, "SELECT aid, note FROM pgbench_accounts WHERE aid % 500 = 0") {
		aid := string(row[0])
		if got := connectortest.Open(t, "pgbench_accounts", []string{"aid"}, []string{aid}, "note", keys, row[1]); got != "note "+aid {
			t.Errorf("account %s holds %q", aid, got)
		}
	}
	t.Logf("%d transactions of pgbench; conflicts: %d encrypting, %d and %d re-encrypting", history, encrypted.Conflicts, moved.Conflicts, again.Conflicts)
}
