package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// TestWalkEnds: a question that walks through a whole table ends soon after it was cancelled, not with the table.
func TestWalkEnds(t *testing.T) {
	d := &database{path: filepath.Join(t.TempDir(), "app.db"), session: reencrypt.Session{}.WithDefaults()}
	if _, err := d.connect(t.Context(), asking); err == nil {
		t.Fatal("connecting made a file")
	}
	d.path = writeEmpty(t, d.path)
	c, err := d.connect(t.Context(), asking)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err = c.each(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT i FROM n", func(row) error {
		n++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || n > 1000 {
		t.Errorf("%d rows after the question was cancelled: %v", n, err)
	}
}

// writeEmpty makes an empty file, which is an empty database.
func writeEmpty(tb testing.TB, path string) string {
	tb.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
