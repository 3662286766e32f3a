package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestAdvisory_CVE_2026_33503 is about forged page tokens that become SQL: a cursor is bytes of a key and never text of a
// statement, so any bytes at all are a row's key or are refused.
func TestAdvisory_CVE_2026_33503(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (a text, b bigint, c uuid, v text, PRIMARY KEY (a, b, c))",
		"INSERT INTO t SELECT 'a' || i, i, gen_random_uuid(), 'v' FROM generate_series(1, 50) i")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	r, err := w.Target.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	page := reencrypt.NewPage(3, 1)
	if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 10}); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(t.Context(), page); err != nil {
		t.Fatal(err)
	}
	good := page.Key(9)
	random := rand.New(rand.NewPCG(1, 1))
	accepted, refused := 0, 0
	for range 300 {
		key := append(reencrypt.Key(nil), good...)
		for range 1 + random.IntN(3) {
			key[random.IntN(len(key))] = "\x00\x01'\";-\xff)"[random.IntN(8)]
		}
		if random.IntN(4) == 0 {
			key = append(key, "'; DROP TABLE t; --"...)
		}
		err := r.Start(t.Context(), key, reencrypt.ReadOptions{Rows: 10})
		switch {
		case err == nil:
			accepted++
			if err := r.Next(t.Context(), page); err != nil {
				t.Fatalf("key %q: %v", key, err)
			}
			if err := r.Find(t.Context(), page, []reencrypt.Key{key}); err != nil || page.Rows() > 1 {
				t.Fatalf("key %q: %d rows, %v", key, page.Rows(), err)
			}
		case fault.CodeOf(err) == api.CodeInvalid && fault.FieldOf(err) == "cursor":
			refused++
		default:
			t.Fatalf("key %q: %v", key, err)
		}
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: the test tests one side only", accepted, refused)
	}
	if n := string(d.Rows(t, "SELECT count(*) FROM t")[0][0]); n != "50" {
		t.Errorf("%s rows are left", n)
	}
}

// TestAdvisory_CVE_2024_27304 is about messages whose length overflows, and placeholders that are mistaken for text: pages
// are bounded long before, and nothing here speaks the simple protocol, in which values are part of the statement.
func TestAdvisory_CVE_2024_27304(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, simple := range []string{"conn.Exec(", "SimpleProtocol", "QueryExecMode", "CopyFrom("} {
			if strings.Contains(string(text), simple) {
				t.Errorf("%s says %s", name, simple)
			}
		}
	}
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)",
		fmt.Sprintf("INSERT INTO t SELECT i, repeat('x', %d) FROM generate_series(1, 8) i", reencrypt.MaxValue-10),
		"INSERT INTO t VALUES (100, $q$'; DROP TABLE t; --$q$), (101, '$1'), (102, '-1')")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	if c := connectortest.MustFinish(t, connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)); c.Changed != 11 {
		t.Errorf("counted %+v", c)
	}
}
