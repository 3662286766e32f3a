package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Exercise(t, func(t *testing.T) storetest.Opener {
		path := filepath.Join(t.TempDir(), "data", "keyturn.db")
		return func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) }
	})
}
