package soak

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the application's own database

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

const patients = 3000

// application is somebody's program that owns the table: it keeps writing while keyturn works on it, and remembers what
// it last wrote.
type application struct {
	t    *testing.T
	db   *sql.DB
	mu   sync.Mutex
	last map[int]string // row -> plaintext that the application last committed
}

func newApplication(t *testing.T, path string) *application {
	t.Helper()
	db := sqlitetest.Open(t, path, "journal_mode(WAL)")
	db.SetMaxOpenConns(1)
	return applicationOn(t, db)
}

// applicationOn makes the table and its rows in a database that is open.
func applicationOn(t *testing.T, db *sql.DB) *application {
	t.Helper()
	a := &application{t: t, db: db, last: map[int]string{}}
	a.exec(`CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT NOT NULL)`)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= patients; i++ {
		a.last[i] = fmt.Sprintf("900-00-%04d", i)
		if _, err := tx.Exec(`INSERT INTO patients VALUES (?, ?)`, i, a.last[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *application) exec(q string, args ...any) {
	a.t.Helper()
	if _, err := a.db.Exec(q, args...); err != nil {
		a.t.Fatalf("application: %v", err)
	}
}

// ciphertexts seals one alternative value for every row, so that the writer can write ciphertexts without asking keyturn.
func ciphertexts(t *testing.T, k *Keyturn, tag string) (sealed map[int]string, plain map[int]string) {
	t.Helper()
	c, err := embedded.Open(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sealed, plain = map[int]string{}, map[int]string{}
	for first := 1; first <= patients; first += 500 {
		var items []api.EncryptRequest
		for i := first; i < first+500 && i <= patients; i++ {
			plain[i] = fmt.Sprintf("901-%s-%04d", tag, i)
			items = append(items, api.EncryptRequest{Plaintext: []byte(plain[i]), Context: rowContext(i)})
		}
		out, err := c.EncryptBatch(t.Context(), "phi", items)
		if err != nil {
			t.Fatal(err)
		}
		for j, item := range out {
			if item.Error != nil {
				t.Fatalf("sealing row %d: %s", first+j, item.Error.Code)
			}
			sealed[first+j] = item.Ciphertext
		}
	}
	return sealed, plain
}

func rowContext(id int) map[string]string {
	return map[string]string{"table": "patients", "patient": fmt.Sprint(id)}
}

// write runs the application's writer until ctx ends: each update is committed, then remembered.
func (a *application) write(ctx context.Context, rng *rand.Rand, sealed, plain map[int]string) int {
	n := 0
	for ; ctx.Err() == nil; n++ {
		id := 1 + rng.IntN(patients)
		a.mu.Lock()
		if _, err := a.db.Exec(`UPDATE patients SET ssn = ? WHERE id = ?`, sealed[id], id); err != nil {
			a.mu.Unlock()
			a.t.Errorf("application: %v", err)
			return n
		}
		a.last[id] = plain[id]
		a.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond): // the application's own pace, not a wait for anything
		}
	}
	return n
}

// check opens every row and compares it with what the application last wrote (I1, P6).
func (a *application) check(k *Keyturn) {
	a.t.Helper()
	c, err := embedded.Open(k.Dir)
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	rows, err := a.db.Query(`SELECT id, ssn FROM patients ORDER BY id`)
	if err != nil {
		a.t.Fatal(err)
	}
	defer rows.Close()
	var ids []int
	var items []api.DecryptRequest
	flush := func() {
		out, err := c.DecryptBatch(a.t.Context(), "phi", items)
		if err != nil {
			a.t.Fatal(err)
		}
		for i, item := range out {
			if item.Error != nil {
				a.t.Fatalf("row %d does not open: %s", ids[i], item.Error.Code)
			}
			if string(item.Plaintext) != a.last[ids[i]] {
				a.t.Fatalf("row %d holds %q, the application last wrote %q", ids[i], item.Plaintext, a.last[ids[i]])
			}
		}
		ids, items = nil, nil
	}
	for rows.Next() {
		var id int
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			a.t.Fatal(err)
		}
		ids, items = append(ids, id), append(items, api.DecryptRequest{Ciphertext: text, Context: rowContext(id)})
		if len(items) == 500 {
			flush()
		}
	}
	if err := rows.Err(); err != nil {
		a.t.Fatal(err)
	}
	if len(items) > 0 {
		flush()
	}
}

// TestCampaignKillReencrypt kills `dataset encrypt` and `dataset reencrypt` at random moments while the application
// writes, then runs the same command to its end: P5, P6, FAULTS rows 1 and 13.
func TestCampaignKillReencrypt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	killReencrypt(t, "kill-reencrypt", 60, newApplication(t, path), "sqlite://"+path)
}

// TestCampaignKillReencryptMariaDB is the same on MariaDB.
func TestCampaignKillReencryptMariaDB(t *testing.T) {
	address := mariatest.Own(t, mariatest.Options{}).Database(t)
	db, err := mariatest.Open(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	killReencrypt(t, "kill-reencrypt-mariadb", 30, applicationOn(t, db), address)
}

func killReencrypt(t *testing.T, name string, attempts int, app *application, address string) {
	rng, seed := Seed(t)
	budget := NewBudget(t, attempts)
	k := New(t)
	k.OK(nil, "dataset", "add", "patients", "--db", address, "--table", "patients", "--column", "ssn=phi",
		"--context", "table={table}", "--context", "patient={pk.id}")
	k.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	kills, finished, writes := 0, 0, 0
	for i := 0; budget.More(i); {
		sealed, plain := ciphertexts(t, k, fmt.Sprintf("%02d", finished%100))
		k.OK(nil, "key", "rotate", "phi")
		ctx, stop := context.WithCancel(context.Background())
		wrote := make(chan int)
		writer := rand.New(rand.NewPCG(seed, uint64(finished)))
		go func() { wrote <- app.write(ctx, writer, sealed, plain) }()
		for done := false; !done && budget.More(i); i++ {
			_, killed, _ := k.KillAfter(time.Duration(rng.Int64N(int64(500*time.Millisecond))), nil,
				"dataset", "reencrypt", "patients", "--unthrottled", "--batch-size", "50")
			if killed {
				kills++
			}
			done = !killed
		}
		stop()
		writes += <-wrote
		k.OK(nil, "dataset", "reencrypt", "patients", "--unthrottled")
		finished++
		assertOnlyActive(t, k)
		app.check(k)
	}
	assertStore(t, k)
	Report(name, seed, "%d kills over %d rotations of %d rows, %d application writes meanwhile: 0 rows on an old version, 0 lost writes", kills, finished, patients, writes)
}

// assertOnlyActive reads the census: nothing under an old version, nothing plaintext, nothing unreadable.
func assertOnlyActive(t *testing.T, k *Keyturn) {
	t.Helper()
	var census api.Census
	k.JSON(&census, "dataset", "census", "patients")
	for _, col := range census.Columns {
		if col.Plaintext != 0 || col.Unreadable != 0 || len(col.Versions) != 1 || col.Versions[0].State != "active" || col.Versions[0].Rows != patients {
			t.Fatalf("after completion the census says %+v", col)
		}
	}
}

// assertStore checks what must hold of every store after any fault: I2 one active version, I3 dense versions, I6 the audit verifies, doctor is content.
func assertStore(t *testing.T, k *Keyturn) api.Key {
	t.Helper()
	var key api.Key
	k.JSON(&key, "key", "show", "phi")
	active := 0
	for i, v := range key.Versions {
		if v.Version != uint32(i+1) {
			t.Fatalf("versions are not dense: %+v", key.Versions)
		}
		if v.State == "active" {
			active++
		}
	}
	if active != 1 {
		t.Fatalf("%d active versions", active)
	}
	var v api.AuditVerification
	k.JSON(&v, "audit", "verify")
	if !v.OK {
		t.Fatalf("the audit log does not verify: %s", v.Bad)
	}
	var d api.Doctor
	k.JSON(&d, "doctor")
	if !d.OK {
		t.Fatalf("doctor: %+v", d.Checks)
	}
	return key
}

// TestCampaignKillKeys kills key rotate, encrypt and key create at random moments: what was acknowledged is there,
// opens and has its audit event; what was not is there whole or not at all (P1, P2, P4).
func TestCampaignKillKeys(t *testing.T) {
	rng, seed := Seed(t)
	budget := NewBudget(t, 120)
	k := New(t)
	kills, acked, rotated := 0, map[string]string{}, uint32(1)
	for i := 0; budget.More(i); i++ {
		wait := time.Duration(rng.Int64N(int64(60 * time.Millisecond))) // a command takes some 40 ms
		if rng.IntN(2) == 0 {
			out, killed, _ := k.KillAfter(wait, nil, "key", "rotate", "phi", "--json")
			if !killed {
				var key api.Key
				if err := json.Unmarshal(out, &key); err != nil {
					t.Fatal(err)
				}
				rotated = uint32(len(key.Versions))
			}
			kills += count(killed)
			continue
		}
		plain := fmt.Sprintf("value %d", i)
		out, killed, _ := k.KillAfter(wait, []byte(plain), "encrypt", "phi", "--context", "n=1")
		if line := string(bytes.TrimSpace(out)); strings.HasPrefix(line, "kt1.") && bytes.HasSuffix(out, []byte("\n")) {
			acked[line] = plain
		}
		kills += count(killed)
	}
	key := assertStore(t, k)
	if uint32(len(key.Versions)) < rotated {
		t.Fatalf("version %d was acknowledged, the key has %d", rotated, len(key.Versions))
	}
	for sealed, plain := range acked {
		if out := k.OK([]byte(sealed), "decrypt", "phi", "--context", "n=1"); string(out) != plain {
			t.Fatalf("an acknowledged ciphertext opens to %q, not %q", out, plain)
		}
	}
	uses := bytes.Count(k.OK(nil, "audit", "query", "--type", "key_use", "--limit", "100000", "--json"), []byte(`"action":"encrypt"`))
	if uses < len(acked) {
		t.Fatalf("%d acknowledged encryptions, %d audit events of them", len(acked), uses)
	}
	Report("kill-keys", seed, "%d kills, %d acknowledged ciphertexts, %d versions: all open, all recorded, one active", kills, len(acked), len(key.Versions))
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
