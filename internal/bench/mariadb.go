package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/mariatest"
)

// mariaTable is a re-encryption target on MariaDB, with the ceiling's table beside it, as [table] is on PostgreSQL.
type mariaTable struct {
	table  // e and dir: for its commands
	server *mariatest.Server
	db     *sql.DB
}

// newMariaTable makes rows fictitious patients, encrypts them and copies the ciphertexts to the ceiling's table. The server
// holds both in memory and waits for the disk with every commit.
func (e *env) newMariaTable(ctx context.Context, name string) (*mariaTable, error) {
	server, err := mariatest.New(ctx, mariatest.Options{Settings: map[string]string{"innodb-buffer-pool-size": "2G", "innodb-log-file-size": "1G"}})
	if err != nil {
		return nil, err
	}
	t := &mariaTable{table: table{e: e, dir: filepath.Join(e.dir, name)}, server: server}
	if err := t.fill(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *mariaTable) fill(ctx context.Context) (err error) {
	if err := t.server.Exec(ctx, t.server.URL(""), "CREATE DATABASE clinic"); err != nil {
		return err
	}
	t.url = t.server.URL("clinic")
	if t.db, err = mariatest.Open(t.url, nil); err != nil {
		return err
	}
	err = t.exec(ctx, "CREATE TABLE patients (id bigint PRIMARY KEY, seen int NOT NULL DEFAULT 0, ssn text NOT NULL)",
		fmt.Sprintf("INSERT INTO patients SELECT seq, 0, CONCAT('9', LPAD(seq %% 100000000, 8, '0')) FROM seq_1_to_%d", t.e.rows))
	for _, args := range [][]string{
		{"init"}, {"key", "create", "phi", "--purpose", "phi"}, {"dataset", "add", "patients", "--db", t.url, "--table", "patients", "--column", "ssn=phi"},
		{"dataset", "encrypt", "patients", "--unthrottled"},
	} {
		if err == nil {
			err = t.keyturn(args...)
		}
	}
	if err != nil {
		return err
	}
	return t.exec(ctx, "CREATE TABLE ceiling LIKE patients", "INSERT INTO ceiling SELECT * FROM patients")
}

func (t *mariaTable) close() {
	if t.db != nil {
		t.db.Close()
	}
	t.server.Close()
}

func (t *mariaTable) exec(ctx context.Context, statements ...string) error {
	for _, s := range statements {
		if _, err := t.db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// settle gives both the same start: old versions purged, nothing dirty.
func (t *mariaTable) settle(ctx context.Context) error {
	return t.exec(ctx, "SET GLOBAL innodb_max_purge_lag_wait = 0", "SET GLOBAL innodb_log_checkpoint_now = ON")
}

func benchReencryptMariaDB(e *env) ([]row, error) {
	ctx := context.Background()
	t, err := e.newMariaTable(ctx, "reencrypt-mariadb")
	if err != nil {
		return nil, err
	}
	defer t.close()
	var ours, theirs, ratios, memory []float64
	for i := range min(e.pairs, 3) {
		if err := t.keyturn("key", "rotate", "phi"); err != nil {
			return nil, err
		}
		if err := t.settle(ctx); err != nil {
			return nil, err
		}
		r, err := t.reencrypt(ctx, "--unthrottled")
		if err != nil {
			return nil, err
		}
		if r.changed != int64(e.rows) {
			return nil, fmt.Errorf("re-encryption changed %d of %d rows: not a fair run", r.changed, e.rows)
		}
		if err := t.settle(ctx); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := t.exec(ctx, fmt.Sprintf("UPDATE ceiling SET ssn = CONCAT(LEFT(ssn, 50), '%c', SUBSTR(ssn, 52))", 'a'+i%26)); err != nil {
			return nil, err
		}
		bare := time.Since(start).Seconds()
		ours, theirs = append(ours, float64(e.rows)/r.seconds), append(theirs, float64(e.rows)/bare)
		ratios, memory = append(ratios, bare/r.seconds), append(memory, r.maxMB)
	}
	return []row{
		{"S5", fmt.Sprintf("re-encrypt %d rows, MariaDB, whole command", e.rows), perSecond(ours), perSecond(theirs) + " (one UPDATE)", ratio(ratios), spread(ratios), ">= 0.65", met(median(ratios) >= 0.65)},
		{"S7", "peak memory of it", fmt.Sprintf("%.0f MB", slices.Max(memory)), "", "", spread(memory), "<= 64 MB", met(slices.Max(memory) <= 64)},
	}, nil
}

// benchUnderLoadMariaDB runs an application on the same table, alone and during a throttled re-encryption.
func benchUnderLoadMariaDB(e *env) ([]row, error) {
	ctx := context.Background()
	small := *e
	small.rows = min(e.rows, 500_000)
	t, err := small.newMariaTable(ctx, "underload-mariadb")
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.exec(ctx, "CREATE TABLE load_counts (client int PRIMARY KEY, n bigint NOT NULL)", "INSERT INTO load_counts VALUES (0,0),(1,0),(2,0),(3,0)"); err != nil {
		return nil, err
	}
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	alone, err := t.load(ctx, func() error { time.Sleep(10 * time.Second); return nil })
	if err != nil {
		return nil, err
	}
	if err := t.keyturn("key", "rotate", "phi"); err != nil {
		return nil, err
	}
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	var r run
	during, err := t.load(ctx, func() error {
		r, err = t.reencrypt(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var seen, updates int64
	if err := t.db.QueryRowContext(ctx, "SELECT SUM(seen), (SELECT SUM(n) FROM load_counts) FROM patients").Scan(&seen, &updates); err != nil {
		return nil, err
	}
	a, d := quantile(alone, 0.99), quantile(during, 0.99)
	return []row{
		{"S6", "application p99 during a throttled re-encryption, MariaDB", fmt.Sprintf("%.2f ms", d/1000), fmt.Sprintf("%.2f ms alone", a/1000), fmt.Sprintf("%.2f", d/a), "", "<= 2", met(d <= 2*a)},
		{"S6", fmt.Sprintf("updates lost (of %d; %d rows moved, %d conflicts)", updates, r.changed, r.conflicts), fmt.Sprint(updates - seen), "", "", "", "0", met(updates == seen)},
	}, nil
}

// load runs 4 clients at 400 transactions a second together, as pgbench does on PostgreSQL, for as long as during takes:
// each updates a random patient and counts it in the same transaction. It gives the latencies in microseconds, from the
// moment that a transaction was due.
func (t *mariaTable) load(ctx context.Context, during func() error) (all []float64, err error) {
	const clients, every = 4, 10 * time.Millisecond
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex // guards all and err
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			var own []float64
			random := rand.New(rand.NewPCG(1, uint64(c)))
			var failed error
			for due := time.Now(); ctx.Err() == nil && failed == nil; due = due.Add(every) {
				time.Sleep(time.Until(due))
				failed = t.transaction(c, 1+random.IntN(t.e.rows))
				own = append(own, float64(time.Since(due).Microseconds()))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
			if failed != nil {
				err = failed
			}
		})
	}
	failed := during()
	stop()
	done.Wait()
	if failed != nil {
		return nil, failed
	}
	return all, err
}

func (t *mariaTable) transaction(client, id int) error {
	tx, err := t.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // committed below
	if _, err := tx.Exec("UPDATE patients SET seen = seen + 1 WHERE id = ?", id); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE load_counts SET n = n + 1 WHERE client = ?", client); err != nil {
		return err
	}
	return tx.Commit()
}
