package postgres_test

import (
	"context"
	"testing"

	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestStore(t *testing.T) {
	storetest.Exercise(t, func(t *testing.T) storetest.Opener {
		url := pgtest.Start(t).Database(t)
		return func(ctx context.Context) (store.Store, error) { return postgres.Open(ctx, url, postgres.Config{}) }
	})
}
