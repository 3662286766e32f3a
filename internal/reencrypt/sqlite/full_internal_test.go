package sqlite

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// TestDiskFull has SQLite itself run out of pages: the page is rolled back, the error says what to do, and the same writer
// goes on once there is space.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	app := sqlitetest.Open(t, path)
	for _, s := range []string{"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"} {
		if _, err := app.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	db, err := Driver{}.Open(t.Context(), reencrypt.NewDSN("sqlite://"+(&url.URL{Path: path}).EscapedPath()), reencrypt.Session{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := db.Describe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	target, err := db.Target(t.Context(), table, []string{"id"}, []string{"v"})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := target.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	b := reencrypt.NewBatch(1, 1)
	for i, old := range []string{"a", "b"} {
		key, _ := appendKey(nil, int64(i+1))
		b.Keys[0].Append(key)
		b.Old[0].Add([]byte(old), reencrypt.Text)
		b.New[0].Add([]byte(strings.Repeat(old, 100000)), reencrypt.Text)
	}
	w := opened.(*writer)
	limit := func(pages string) {
		if err := w.conn.exec(t.Context(), "PRAGMA max_page_count = "+pages); err != nil {
			t.Fatal(err)
		}
	}
	limit("30")
	if n, err := w.Swap(t.Context(), b, 0, 2); n != 0 || fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "space") {
		t.Errorf("writing to a full disk: %d, %v (%s)", n, err, fault.NextOf(err))
	}
	limit("1000")
	if n, err := w.Swap(t.Context(), b, 0, 2); n != 2 || err != nil {
		t.Errorf("writing when there is space again: %d, %v", n, err)
	}
}
