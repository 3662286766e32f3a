package reencrypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/foreign"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// Two Fernet keys of an application that has rotated once, and one that nobody kept.
const (
	newKey  = "signing key nr.2encryption key 2"
	oldKey  = "signing key nr.1encryption key 1"
	lostKey = "signing key nr.0encryption key 0"
)

// fernetToken is a token of the specification, made without the code under test.
func fernetToken(key, plain string, made time.Time) string {
	block, err := aes.NewCipher([]byte(key[16:]))
	if err != nil {
		panic(err)
	}
	iv := sha256.Sum256([]byte(plain))
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	body := append([]byte(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv[:16]).CryptBlocks(body, body)
	raw := binary.BigEndian.AppendUint64([]byte{0x80}, uint64(made.Unix()))
	raw = append(append(raw, iv[:16]...), body...)
	mac := hmac.New(sha256.New, []byte(key[:16]))
	mac.Write(raw)
	return base64.URLEncoding.EncodeToString(mac.Sum(raw))
}

// tokens is a table of 90 values under the new and the old key, and of ten rows each of which is a case of its own.
func (c *clinic) tokens() {
	c.Helper()
	long := time.Now().Add(-1000 * 24 * time.Hour)
	c.app.Exec(c, "CREATE TABLE tokens (id bigint PRIMARY KEY, v text)")
	put := func(id int, v any) {
		if _, err := c.app.DB.ExecContext(c.Context(), "INSERT INTO tokens (id, v) VALUES ($1, $2)", id, v); err != nil {
			c.Fatal(err)
		}
	}
	for i := 1; i <= 90; i++ {
		put(i, fernetToken([]string{oldKey, newKey, newKey}[i%3], fmt.Sprintf("900-00-%04d", i), long))
	}
	put(91, nil)
	put(92, "in clear")
	put(93, fernetToken(lostKey, "lost", long))
	put(94, fernetToken(newKey, "cut short", long)[:60])
	put(95, fernetToken(newKey, "from the future", time.Now().Add(time.Hour)))
	put(96, fernetToken(newKey, "", long))
	_, err := c.AddDataset(c.Context(), api.AddDatasetRequest{Name: "tokens", DB: c.app.URL, Table: "tokens", Columns: map[string]string{"v": "phi"}, Foreign: true})
	c.must(err)
}

func fromFernet(keys ...string) *api.DatasetSource {
	out := &api.DatasetSource{Format: "fernet"}
	for _, k := range keys {
		out.Keys = append(out.Keys, []byte(k))
	}
	return out
}

// takeOver runs an import to its end.
func (c *clinic) takeOver(dataset string, in api.DatasetRunRequest) api.Job {
	c.Helper()
	run, err := c.EncryptDataset(c.Context(), dataset, in)
	c.must(err)
	return c.finish(run.Job)
}

// reasons is a job's list of failures, by row.
func (c *clinic) reasons(job string) map[string]string {
	c.Helper()
	list, err := c.JobFailures(c.Context(), job, 0, 0)
	c.must(err)
	out := map[string]string{}
	for _, f := range list.Failures {
		out[f.Item] = f.Reason
	}
	return out
}

// row opens a value of ours as its application would.
func (c *clinic) row(table, column string, id int) string {
	c.Helper()
	v := c.app.Rows(c, fmt.Sprintf("SELECT %s FROM %s WHERE id = %d", column, table, id))[0][0]
	text := string(v)
	if !strings.HasPrefix(text, "kt1.") {
		text = string(envelope.AppendText(nil, v))
	}
	out, err := c.Decrypt(c.Context(), "phi", api.DecryptRequest{Ciphertext: text, Context: map[string]string{"table": table, "column": column, "pk.id": fmt.Sprint(id)}})
	if err != nil {
		return "closed: " + err.Error()
	}
	return string(out.Plaintext)
}

// secrets is how many jobs have candidate keys kept for them.
func (c *clinic) secrets() int {
	c.Helper()
	db := sqlitetest.Open(c, filepath.Join(c.dir, "keyturn.db"))
	defer db.Close()
	n := 0
	if err := db.QueryRowContext(c.Context(), "SELECT count(*) FROM job_secrets").Scan(&n); err != nil {
		c.Fatal(err)
	}
	return n
}

func TestImportOfFernet(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.tokens()
		dry := c.takeOver("tokens", api.DatasetRunRequest{DryRun: true, From: fromFernet(oldKey, newKey)})
		if n := dry.Run.Candidates; dry.State != "done" || dry.Run.From != "fernet" || dry.Run.Changed != 91 || dry.Run.Failed != 4 || len(n) != 2 || n[0].Values != 30 || n[1].Values != 61 {
			c.Errorf("a dry run: %+v, %+v", dry, dry.Run)
		}
		if got := c.app.Rows(c, "SELECT count(*) FROM tokens WHERE v LIKE 'kt1.%'"); string(got[0][0]) != "0" {
			c.Errorf("a dry run wrote %s rows", got[0][0])
		}
		fingerprint := dry.Run.Candidates[0].Fingerprint
		bare := sha256.Sum256([]byte(oldKey))
		if len(fingerprint) != 16 || strings.HasPrefix(fmt.Sprintf("%x", bare), fingerprint) {
			c.Errorf("fingerprint %q", fingerprint)
		}

		j := c.takeOver("tokens", api.DatasetRunRequest{From: fromFernet(oldKey, newKey)})
		if j.State != "failed" || j.Run.Changed != 91 || j.Run.Failed != 4 || j.Run.Candidates[0] != (api.DatasetCandidate{Fingerprint: fingerprint, Values: 30}) {
			c.Errorf("the import: %+v, %+v", j, j.Run)
		}
		want := map[string]string{
			"92": foreign.NotForeign.Reason(), "93": foreign.NoKey.Reason(), "94": foreign.Malformed.Reason(), "95": foreign.Future.Reason(),
		}
		if got := c.reasons(j.ID); fmt.Sprint(got) != fmt.Sprint(want) {
			c.Errorf("the list of failures: %v", got)
		}
		if c.row("tokens", "v", 17) != "900-00-0017" || c.row("tokens", "v", 18) != "900-00-0018" || c.row("tokens", "v", 96) != "" {
			c.Errorf("rows 17, 18 and 96: %q, %q, %q", c.row("tokens", "v", 17), c.row("tokens", "v", 18), c.row("tokens", "v", 96))
		}
		if got := c.app.Rows(c, "SELECT v FROM tokens WHERE id = 92"); string(got[0][0]) != "in clear" {
			c.Errorf("a row that failed: %q", got[0][0])
		}

		// With the key that was missing, and plaintext too, all but what is broken is done; what is ours already is left.
		j = c.takeOver("tokens", api.DatasetRunRequest{From: func() *api.DatasetSource {
			in := fromFernet(lostKey, newKey)
			in.PlaintextToo = true
			return in
		}()})
		if j.Run.Changed != 2 || j.Run.Failed != 2 || c.row("tokens", "v", 92) != "in clear" || c.row("tokens", "v", 93) != "lost" {
			c.Errorf("again: %+v; %q, %q", j.Run, c.row("tokens", "v", 92), c.row("tokens", "v", 93))
		}
		c.app.Exec(c, "DELETE FROM tokens WHERE id IN (94, 95)")
		if j = c.takeOver("tokens", api.DatasetRunRequest{From: fromFernet(newKey)}); j.State != "done" || j.Run.Changed != 0 {
			c.Errorf("with nothing left: %+v, %+v", j, j.Run)
		}
		c.leaksNothing(oldKey, newKey, lostKey, "900-00-0017")
	})
}

// leaksNothing looks for secrets in what jobs, failures and the audit log say, and in the store's own file.
func (c *clinic) leaksNothing(secrets ...string) {
	c.Helper()
	var said bytes.Buffer
	list, err := c.Jobs(c.Context(), keyturn.JobFilter{})
	c.must(err)
	for _, j := range list.Jobs {
		failures, err := c.JobFailures(c.Context(), j.ID, 0, 0)
		c.must(err)
		text, _ := json.Marshal([]any{j, failures})
		said.Write(text)
	}
	events := 0
	for e, err := range c.AuditEvents(c.Context(), keyturn.AuditQuery{}) {
		c.must(err)
		said.Write(e)
		if text := string(e); strings.Contains(text, `"candidates":"`) && strings.Contains(text, `"from":"fernet"`) {
			events++
		}
	}
	if events == 0 {
		c.Error("no audit event tells of the candidates")
	}
	for _, pattern := range []string{"keyturn.db", "keyturn.db-wal"} {
		said.WriteString(readIfThere(c, filepath.Join(c.dir, pattern)))
	}
	for _, s := range secrets {
		for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), fmt.Sprintf("%x", s)} {
			if strings.Contains(said.String(), form) {
				c.Errorf("%d characters of a secret are to be seen", len(form))
			}
		}
	}
	if n := c.secrets(); n != 0 {
		c.Errorf("candidate keys of %d jobs are kept, and all have ended", n)
	}
}

// The candidates live as long as the job: over a pause, and not over its end, so a retry asks for the command again.
func TestImportKeysLiveWithTheirJob(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.tokens()
		slow := func() api.DatasetRunRequest {
			return api.DatasetRunRequest{Rate: 1, BatchSize: 1, From: fromFernet(oldKey, newKey)}
		}
		first, err := c.EncryptDataset(c.Context(), "tokens", slow())
		c.must(err)
		if again, err := c.EncryptDataset(c.Context(), "tokens", slow()); err != nil || again.Job != first.Job {
			c.Errorf("the same command again: %+v, %v", again, err)
		}
		for name, other := range map[string]api.DatasetRunRequest{
			"no import": {Plaintext: true}, "other keys": {From: fromFernet(newKey)}, "another order": {From: fromFernet(newKey, oldKey)},
		} {
			if _, err := c.EncryptDataset(c.Context(), "tokens", other); keyturn.CodeOf(err) != api.CodeConflict {
				c.Errorf("%s meanwhile: %v", name, err)
			}
		}
		_, err = c.PauseJob(c.Context(), first.Job)
		c.must(err)
		if j := c.finish(first.Job); j.State != "paused" || c.secrets() != 1 {
			c.Errorf("paused: %+v, keys of %d jobs", j, c.secrets())
		}
		_, err = c.CancelJob(c.Context(), first.Job)
		c.must(err)
		if j := c.finish(first.Job); j.State != "cancelled" || c.secrets() != 0 {
			c.Errorf("cancelled: %+v, keys of %d jobs", j, c.secrets())
		}
		c.refusesRetry(first.Job)
		failed := c.takeOver("tokens", api.DatasetRunRequest{From: fromFernet(newKey)})
		if failed.State != "failed" || failed.Run.Changed == 0 || failed.Run.Failed == 0 || failed.Error == "" {
			c.Fatalf("with a key missing: %+v, %+v", failed, failed.Run)
		}
		c.refusesRetry(failed.ID)
	})
}

// TestForeignIsRemembered: what is left of another system's ciphertexts is not sealed as if it were plaintext, before an import or
// after a part of one, unless somebody says that nothing of them is left. Moving what is ours goes on all the same.
func TestForeignIsRemembered(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.tokens()
		if d, err := c.Dataset(c.Context(), "tokens"); err != nil || !d.Columns[0].Foreign {
			c.Errorf("its record: %+v, %v", d, err)
		}
		refused := func(when string) {
			c.Helper()
			for _, dry := range []bool{false, true} {
				_, err := c.EncryptDataset(c.Context(), "tokens", api.DatasetRunRequest{DryRun: dry})
				_, _, next := keyturn.Explain(err)
				if keyturn.CodeOf(err) != api.CodeWrongState || fieldOf(err) != "from" || !strings.Contains(next, "encrypt tokens --from") || !strings.Contains(next, "--plain") {
					c.Errorf("%s, dry run %v: %v, next %q", when, dry, err, next)
				}
			}
			if got := c.row("tokens", "v", 93); !strings.HasPrefix(got, "closed: ") {
				c.Errorf("%s: a token was sealed", when)
			}
		}
		refused("before an import")
		if j := c.takeOver("tokens", api.DatasetRunRequest{From: fromFernet(oldKey, newKey)}); j.State != "failed" || j.Run.Changed != 91 {
			c.Fatalf("imported: %+v, %+v", j, j.Run)
		}
		refused("after a part of it")

		_, err := c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		if run := c.run(func() (api.DatasetRun, error) {
			return c.ReencryptDataset(c.Context(), "tokens", api.DatasetRunRequest{})
		}); run.Changed != 91 || run.Plaintext != 4 {
			c.Errorf("re-encrypted: %+v", run)
		}
		for name, start := range map[string]func(api.DatasetRunRequest) (api.DatasetRun, error){
			"with a source": func(in api.DatasetRunRequest) (api.DatasetRun, error) {
				in.From = fromFernet(newKey)
				return c.EncryptDataset(c.Context(), "tokens", in)
			},
			"another kind": func(in api.DatasetRunRequest) (api.DatasetRun, error) {
				return c.ReencryptDataset(c.Context(), "tokens", in)
			},
		} {
			if _, err := start(api.DatasetRunRequest{Plaintext: true}); keyturn.CodeOf(err) != api.CodeInvalid || fieldOf(err) != "plaintext" {
				c.Errorf("taken for plaintext, %s: %v", name, err)
			}
		}

		c.app.Exec(c, "DELETE FROM tokens WHERE id IN (93, 94, 95)")
		run := c.run(func() (api.DatasetRun, error) {
			return c.EncryptDataset(c.Context(), "tokens", api.DatasetRunRequest{Plaintext: true})
		})
		if run.Changed != 1 || c.row("tokens", "v", 92) != "in clear" {
			c.Errorf("what is plaintext by now: %+v, %q", run, c.row("tokens", "v", 92))
		}
	})
}

// refusesRetry expects that an import that ended isn't taken up again, and that what it did stays to be read.
func (c *clinic) refusesRetry(job string) {
	c.Helper()
	before, err := c.Job(c.Context(), job)
	c.must(err)
	list := c.reasons(job)
	_, err = c.RetryJob(c.Context(), job)
	_, _, next := keyturn.Explain(err)
	if keyturn.CodeOf(err) != api.CodeWrongState || !strings.Contains(err.Error(), "erased when the job ended") ||
		!strings.Contains(next, "keyturn dataset encrypt tokens --from fernet --from-key-file FILE") {
		c.Errorf("retried: %v, next %q", err, next)
	}
	after, err := c.Job(c.Context(), job)
	if err != nil || !reflect.DeepEqual(after, before) || !maps.Equal(c.reasons(job), list) {
		c.Errorf("the job was\n%+v %+v and is\n%+v %+v (%v)", before, before.Run, after, after.Run, err)
	}
}

func TestImportRefuses(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.tokens()
		for name, q := range map[string]struct {
			edit  func(*api.DatasetSource)
			field string
		}{
			"no key":            {func(in *api.DatasetSource) { in.Keys = nil }, "from.keys"},
			"no format":         {func(in *api.DatasetSource) { in.Format = "" }, "from.format"},
			"short key":         {func(in *api.DatasetSource) { in.Keys[0] = in.Keys[0][1:] }, "from.keys"},
			"nothing verifies":  {func(in *api.DatasetSource) { in.Format = "aes-256-cbc" }, "from.unauthenticated"},
			"nothing expected":  {func(in *api.DatasetSource) { in.Format, in.Unauthenticated = "aes-256-cbc", true }, "from.expect"},
			"plaintext unknown": {func(in *api.DatasetSource) { in.Format, in.Layout, in.PlaintextToo = "aes-256-cbc", "iv-hmac", true }, "from.plaintextToo"},
		} {
			in := fromFernet(newKey)
			q.edit(in)
			_, err := c.EncryptDataset(c.Context(), "tokens", api.DatasetRunRequest{From: in})
			if keyturn.CodeOf(err) != api.CodeInvalid || fieldOf(err) != q.field {
				c.Errorf("%s: field %q, %v", name, fieldOf(err), err)
			}
		}
		if _, err := c.ReencryptDataset(c.Context(), "tokens", api.DatasetRunRequest{From: fromFernet(newKey)}); fieldOf(err) != "from" {
			c.Errorf("another kind of run: %v", err)
		}
		if n := c.secrets(); n != 0 {
			c.Errorf("keys are kept of %d jobs that never were", n)
		}
	})
}

// TestImportOfPgcrypto takes over what the database itself encrypted: bytes become bytes, text becomes text.
func TestImportOfPgcrypto(t *testing.T) {
	address := pgtest.Start(t).Database(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := newClinic(t, connectortest.Database{URL: address, DB: db})
	c.app.Exec(c, "CREATE EXTENSION pgcrypto", "CREATE TABLE letters (id bigint PRIMARY KEY, body bytea, note text, raw bytea)",
		`INSERT INTO letters SELECT i, pgp_sym_encrypt('letter ' || i, CASE WHEN i % 4 = 0 THEN 'old pass' ELSE 'new pass' END, 's2k-count=1024'),
			armor(pgp_sym_encrypt('note ' || i, 'new pass', 's2k-count=1024, compress-algo=1')), encrypt(('raw ' || i)::bytea, 'a raw key', 'aes') FROM generate_series(1, 100) AS i`)
	add := func(name string, columns ...string) {
		in := api.AddDatasetRequest{Name: name, DB: c.app.URL, Table: "letters", Columns: map[string]string{}, Foreign: true}
		for _, column := range columns {
			in.Columns[column] = "phi"
		}
		_, err := c.AddDataset(c.Context(), in)
		c.must(err)
	}
	add("letters", "body", "note")
	j := c.takeOver("letters", api.DatasetRunRequest{From: &api.DatasetSource{Format: "pgcrypto", Keys: [][]byte{[]byte("old pass"), []byte("new pass")}}})
	if n := j.Run.Candidates; j.State != "done" || j.Run.Changed != 100 || n[0].Values != 25 || n[1].Values != 175 {
		c.Errorf("pgp: %+v, %+v", j, j.Run)
	}
	if got := c.row("letters", "body", 44) + c.row("letters", "note", 44); got != "letter 44note 44" {
		c.Errorf("row 44: %q", got)
	}
	if v := c.app.Rows(c, "SELECT body FROM letters WHERE id = 44")[0][0]; !bytes.HasPrefix(v, []byte("KT")) {
		c.Error("a column of bytes doesn't hold bytes")
	}
	add("raw", "raw")
	j = c.takeOver("raw", api.DatasetRunRequest{From: &api.DatasetSource{Format: "pgcrypto", Layout: "raw", Keys: [][]byte{[]byte("wrong"), []byte("a raw key")}, Unauthenticated: true, Expect: `raw \d+`}})
	if j.State != "done" || j.Run.Changed != 100 || j.Run.Candidates[1].Values != 100 || j.Run.From != "pgcrypto raw" {
		c.Errorf("raw: %+v, %+v", j, j.Run)
	}
	if got := c.row("letters", "raw", 7); got != "raw 7" {
		c.Errorf("row 7: %q", got)
	}
}

// A column may have room for what another system wrote and not for ours; then the row says so, and stays.
func TestImportIntoNarrowColumn(t *testing.T) {
	address := pgtest.Start(t).Database(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := newClinic(t, connectortest.Database{URL: address, DB: db})
	c.tokens()
	c.app.Exec(c, "DELETE FROM tokens WHERE id > 3", "ALTER TABLE tokens ALTER v TYPE varchar(150)")
	if _, err := c.EncryptDataset(c.Context(), "tokens", api.DatasetRunRequest{From: fromFernet(newKey)}); keyturn.CodeOf(err) != api.CodeInvalid || fieldOf(err) != "columns" {
		c.Errorf("a column without room for any ciphertext: %v", err)
	}
	c.app.Exec(c, "ALTER TABLE tokens ALTER v TYPE varchar(200)")
	long := fernetToken(newKey, strings.Repeat("x", 60), time.Unix(1e9, 0))
	if _, err := c.app.DB.ExecContext(c.Context(), "UPDATE tokens SET v = $1 WHERE id = 2", long); err != nil {
		t.Fatal(err)
	}
	j := c.takeOver("tokens", api.DatasetRunRequest{From: fromFernet(oldKey, newKey)})
	if got := c.reasons(j.ID); j.Run.Changed != 2 || len(got) != 1 || !strings.Contains(got["2"], "needs 239 characters") {
		c.Errorf("%+v, %v", j.Run, got)
	}
}

// importing is a run over a table in memory whose values are tokens.
func importing(t testing.TB, n int) (*connectortest.Memory, *connectortest.KeySet, reencrypt.Work) {
	t.Helper()
	m, keys, w := memory(t, n, reencrypt.KindEncrypt)
	for i := 1; i <= n; i++ {
		m.Put(int64(i), fernetToken([]string{oldKey, newKey}[i%2], plain(i), time.Unix(1e9, 0)))
	}
	o, err := foreign.New(foreign.Source{Format: "fernet"}, []*material.Bytes{material.New([]byte(newKey)), material.New([]byte(oldKey))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Destroy)
	w.Import = &reencrypt.Import{Opener: o, Clock: time.Now}
	return m, keys, w
}

// TestImportGivesWay: what the application writes while a page is on its way stays (P6), and a later pass takes it over.
func TestImportGivesWay(t *testing.T) {
	m, keys, w := importing(t, 200)
	var once sync.Once // which holds the other workers until all of it is written
	m.BeforeSwap = func(int) error {
		once.Do(func() {
			for i := range 200 {
				m.Put(int64(i+1), fernetToken(newKey, "newer "+plain(i+1), time.Unix(1e9, 0)))
			}
		})
		return nil
	}
	c := connectortest.MustFinish(t, w)
	if c.Conflicts == 0 || c.Changed != 200 {
		t.Errorf("counted %+v", c)
	}
	for i := 1; i <= 200; i++ {
		if got := opened(t, m, keys, i); got != "newer "+plain(i) {
			t.Fatalf("row %d: %q", i, got)
		}
		if m.Written(int64(i)) != 1 {
			t.Fatalf("row %d was written %d times", i, m.Written(int64(i)))
		}
	}
}

// TestImportGoesOn: a connection that breaks after a commit whose answer never came, again and again: nothing is sealed twice
// (P5).
func TestImportGoesOn(t *testing.T) {
	m, keys, w := importing(t, 300)
	var broken atomic.Int64 // several writers swap at once
	m.AfterSwap = func(int) error {
		if broken.Add(1)%3 == 0 {
			return fault.New(api.CodeUnavailable, "the connection broke")
		}
		return nil
	}
	connectortest.MustFinish(t, w)
	for i := 1; i <= 300; i++ {
		if opened(t, m, keys, i) != plain(i) || m.Written(int64(i)) != 1 {
			t.Fatalf("row %d: %q, written %d times", i, opened(t, m, keys, i), m.Written(int64(i)))
		}
	}
	if n := broken.Load(); n < 10 {
		t.Errorf("it broke %d times", n)
	}
}

// A value of ours is left alone whatever the import, and a key that opens nothing leaves everything.
func TestImportLeavesWhatItCanNotOpen(t *testing.T) {
	m, _, w := importing(t, 20)
	o, err := foreign.New(foreign.Source{Format: "fernet"}, []*material.Bytes{material.New([]byte(lostKey))})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Destroy()
	w.Import = &reencrypt.Import{Opener: o, Clock: time.Now, PlaintextToo: true}
	before := make([]string, 20)
	for i := range before {
		before[i] = m.Get(int64(i + 1))
	}
	var r connectortest.Run
	err = r.Finish(t.Context(), w)
	if fault.CodeOf(err) != api.CodeIntegrity || !strings.Contains(fault.NextOf(err), "--from") || len(r.Failed) != 20 || r.State.Counts.Changed != 0 {
		t.Errorf("%+v, %v", r.State, err)
	}
	for i := range before {
		if m.Get(int64(i+1)) != before[i] {
			t.Errorf("row %d was written", i+1)
		}
	}
	if !slices.ContainsFunc(r.Failed, func(f reencrypt.Failed) bool { return f.Item == "7" && f.Reason == foreign.NoKey.Reason() }) {
		t.Errorf("failures: %+v", r.Failed)
	}
}

func readIfThere(c *clinic, file string) string {
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		c.Fatal(err)
	}
	return string(b)
}
