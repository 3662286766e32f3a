package postgres_test

import (
	"context"
	"testing"

	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

func freshBench(b *testing.B) storetest.Opener {
	url := pgtest.Start(b).Database(b)
	return func(ctx context.Context) (store.Store, error) { return postgres.Open(ctx, url, postgres.Config{}) }
}

func BenchmarkAppend(b *testing.B) { storetest.BenchAppend(b, freshBench) }

func BenchmarkQuery(b *testing.B) { storetest.BenchQuery(b, freshBench) }

func BenchmarkActive(b *testing.B) { storetest.BenchActive(b, freshBench) }
