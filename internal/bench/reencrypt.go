package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/pgtest"
)

// table is one re-encryption target: a keyturn data directory with a dataset on a PostgreSQL table, and an identical
// table beside it for the bare UPDATE.
type table struct {
	e    *env
	pg   *pgtest.Server
	conn *pgx.Conn
	dir  string
	url  string
}

// newTable makes rows fictitious patients, encrypts them and copies the ciphertexts to the ceiling's table.
func (e *env) newTable(ctx context.Context, name string) (*table, error) {
	pg, err := pgtest.New(ctx, pgtest.Options{})
	if err != nil {
		return nil, err
	}
	t := &table{e: e, pg: pg, dir: filepath.Join(e.dir, name), url: pg.URL("postgres")}
	if t.conn, err = pgx.Connect(ctx, t.url); err != nil {
		pg.Close()
		return nil, err
	}
	steps := []func() error{
		func() error {
			return t.exec(ctx, `CREATE TABLE patients (id bigint PRIMARY KEY, seen int NOT NULL DEFAULT 0, ssn text NOT NULL)`,
				fmt.Sprintf(`INSERT INTO patients SELECT g, 0, '9' || lpad((g %% 100000000)::text, 8, '0') FROM generate_series(1, %d) g`, e.rows))
		},
		func() error { return t.keyturn("init") },
		func() error { return t.keyturn("key", "create", "phi", "--purpose", "phi") },
		func() error {
			return t.keyturn("dataset", "add", "patients", "--db", t.url, "--table", "patients", "--column", "ssn=phi")
		},
		func() error { return t.keyturn("dataset", "encrypt", "patients", "--unthrottled") },
		func() error {
			return t.exec(ctx, `CREATE TABLE ceiling AS SELECT * FROM patients`, `ALTER TABLE ceiling ADD PRIMARY KEY (id)`)
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

func (t *table) close() {
	t.conn.Close(context.Background())
	t.pg.Close()
}

func (t *table) exec(ctx context.Context, statements ...string) error {
	for _, s := range statements {
		if _, err := t.conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) keyturn(args ...string) error {
	_, err := t.e.keyturn(t.dir, nil, args...)
	return err
}

// run is one timed keyturn command: the whole process, from start to exit.
type run struct {
	seconds, maxMB float64
	rows, changed  int64
	conflicts      int64
}

func (t *table) reencrypt(ctx context.Context, flags ...string) (run, error) {
	cmd := exec.CommandContext(ctx, t.e.binary, append([]string{"dataset", "reencrypt", "patients", "--json"}, flags...)...)
	cmd.Env = append(cleanEnv(), "KEYTURN_DIR="+t.dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start).Seconds()
	if err != nil {
		return run{}, fmt.Errorf("dataset reencrypt: %w: %s", err, stderr.String())
	}
	var r struct{ Rows, Changed, Conflicts int64 }
	if err := json.Unmarshal(out, &r); err != nil {
		return run{}, err
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return run{seconds: took, maxMB: float64(usage.Maxrss) / 1024, rows: r.Rows, changed: r.Changed, conflicts: r.Conflicts}, nil
}

// bareUpdate is the ceiling: one SQL statement that really changes the bytes of every row.
func (t *table) bareUpdate(ctx context.Context, round int) (float64, error) {
	mark := string(rune('a' + round%26))
	start := time.Now()
	err := t.exec(ctx, fmt.Sprintf(`UPDATE ceiling SET ssn = left(ssn, 50) || '%s' || substr(ssn, 52)`, mark))
	return time.Since(start).Seconds(), err
}

// settle gives both the same start: no dead rows, nothing dirty.
func (t *table) settle(ctx context.Context) error {
	return t.exec(ctx, `VACUUM patients`, `VACUUM ceiling`, `CHECKPOINT`)
}

func benchReencrypt(e *env) ([]row, error) {
	ctx := context.Background()
	t, err := e.newTable(ctx, "reencrypt")
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
		bare, err := t.bareUpdate(ctx, i)
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, float64(e.rows)/r.seconds), append(theirs, float64(e.rows)/bare)
		ratios, memory = append(ratios, bare/r.seconds), append(memory, r.maxMB)
	}
	return []row{
		{"S5", fmt.Sprintf("re-encrypt %d rows, PostgreSQL, whole command", e.rows), perSecond(ours), perSecond(theirs) + " (one UPDATE)", ratio(ratios), spread(ratios), ">= 0.65", met(median(ratios) >= 0.65)},
		{"S7", "peak memory of it", fmt.Sprintf("%.0f MB", slices.Max(memory)), "", "", spread(memory), "<= 64 MB", met(slices.Max(memory) <= 64)},
	}, nil
}

// benchUnderLoad runs pgbench with a script of its own on the same table, alone and during a throttled re-encryption.
func benchUnderLoad(e *env) ([]row, error) {
	ctx := context.Background()
	small := *e
	small.rows = min(e.rows, 500_000) // 33 s at the default rate: what starting costs is a small part of it, as it is in practice
	t, err := small.newTable(ctx, "underload")
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.settle(ctx); err != nil { // else the load pays for what filling the table left to be written
		return nil, err
	}
	alone, err := t.pgbench(ctx, 10, nil)
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
	during, err := t.pgbench(ctx, 600, func(ctx context.Context) error {
		r, err = t.reencrypt(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var seen, updates int64
	if err := t.conn.QueryRow(ctx, `SELECT sum(seen), (SELECT sum(n) FROM load_counts) FROM patients`).Scan(&seen, &updates); err != nil {
		return nil, err
	}
	a, d := quantile(alone, 0.99), quantile(during, 0.99)
	return []row{
		{"S6", "application p99 during a throttled re-encryption", fmt.Sprintf("%.2f ms", d/1000), fmt.Sprintf("%.2f ms alone", a/1000), fmt.Sprintf("%.2f", d/a), "", "<= 2", met(d <= 2*a)},
		{"S6", fmt.Sprintf("updates lost (of %d; %d rows moved, %d conflicts)", updates, r.changed, r.conflicts), strconv.FormatInt(updates-seen, 10), "", "", "", "0", met(updates == seen)},
	}, nil
}

// pgbench runs 4 clients at 400 transactions a second, each updating a random patient and counting it in the same
// transaction, and gives the latencies in microseconds. during, when given, ends the measurement when it returns.
func (t *table) pgbench(ctx context.Context, seconds int, during func(context.Context) error) ([]float64, error) {
	if err := t.exec(ctx, `CREATE TABLE IF NOT EXISTS load_counts (client int PRIMARY KEY, n bigint NOT NULL)`,
		`INSERT INTO load_counts SELECT g, 0 FROM generate_series(0, 63) g ON CONFLICT DO NOTHING`); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyturn-load-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "load.sql")
	text := fmt.Sprintf("\\set id random(1, %d)\nBEGIN;\nUPDATE patients SET seen = seen + 1 WHERE id = :id;\nUPDATE load_counts SET n = n + 1 WHERE client = :client_id;\nEND;\n", t.e.rows)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd, err := t.pg.PgbenchCommand(ctx, t.url, "-n", "-c", "4", "-j", "1", "-R", "400", "-T", strconv.Itoa(seconds), "-f", script, "-l", "--log-prefix="+filepath.Join(dir, "lat"))
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if during != nil {
		if err := during(ctx); err != nil {
			cmd.Process.Kill()
			cmd.Wait()
			return nil, err
		}
		cmd.Process.Signal(os.Interrupt)
	}
	err = cmd.Wait()
	if err != nil && during == nil {
		return nil, fmt.Errorf("pgbench: %w", err)
	}
	return latencies(dir)
}

// latencies reads pgbench's transaction log: the third column is the latency in microseconds.
func latencies(dir string) ([]float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "lat*"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("pgbench left no log: %v", err)
	}
	var out []float64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 3 {
				continue
			}
			v, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				continue // the last line may be cut by the interrupt
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
