package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

func freshBench(b *testing.B) storetest.Opener {
	path := filepath.Join(b.TempDir(), "keyturn.db")
	return func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) }
}

func BenchmarkAppend(b *testing.B) { storetest.BenchAppend(b, freshBench) }

func BenchmarkQuery(b *testing.B) { storetest.BenchQuery(b, freshBench) }

func BenchmarkActive(b *testing.B) { storetest.BenchActive(b, freshBench) }

// BenchmarkOpen is a start on a store that is there.
func BenchmarkOpen(b *testing.B) {
	open := freshBench(b)
	for b.Loop() {
		st, err := open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := st.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
