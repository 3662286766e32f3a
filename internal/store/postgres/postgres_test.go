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

func fresh(t *testing.T) storetest.Opener {
	url := pgtest.Start(t).Database(t)
	return func(ctx context.Context) (store.Store, error) { return postgres.Open(ctx, url, postgres.Config{}) }
}

func TestStore(t *testing.T) { storetest.Exercise(t, fresh) }

func TestAdvisory_CVE_2021_45042(t *testing.T) { storetest.Writes(t, fresh(t)) }

func TestAdvisory_OPENBAO_LIKE(t *testing.T) { storetest.Names(t, fresh(t)) }

func TestAdvisory_CVE_2025_64529_CVE_2023_35930(t *testing.T) { storetest.Limits(t, fresh(t)) }

func TestAdvisory_CVE_2025_47907(t *testing.T) { storetest.CancelledReads(t, fresh(t)) }
