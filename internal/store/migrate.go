package store

import (
	"context"
	"database/sql"
	"io/fs"
	"slices"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Migrations is how a driver's tables come about and change.
type Migrations struct {
	Dialect goose.Dialect
	Files   fs.FS              // NNNNN_name.sql in goose's form
	Locker  lock.SessionLocker // keeps other nodes out meanwhile; nil where only one process opens the database
	// Explain makes a fault of an error of the database: what happened, and what to do.
	Explain func(context.Context, error) error
	// River is River's own tables as one more migration, see RiverTables.
	River *goose.Migration
}

// riverVersion is the version of River's tables that this build works with, and riverMigration the number of our own
// migration that brings them there. A later River gets a later migration.
const (
	riverVersion   = 6
	riverMigration = 2
)

// RiverTables makes the migration that brings River's tables to riverVersion. It runs outside a transaction, because a
// later step of River's uses an enum value that an earlier one adds; each step has its own, and a crash between them is
// made good by running it again.
func RiverTables[T any](driver func(*sql.DB) riverdriver.Driver[T]) *goose.Migration {
	return goose.NewGoMigration(riverMigration, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		m, err := rivermigrate.New(driver(db), nil)
		if err != nil {
			return err
		}
		// A crash may have come after River's last step and before our own note of it, and River refuses a target that is
		// reached already.
		done, err := m.ExistingVersions(ctx)
		if err != nil || slices.ContainsFunc(done, func(v rivermigrate.Migration) bool { return v.Version == riverVersion }) {
			return err
		}
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: riverVersion})
		return err
	}}, nil)
}

// Migrate brings the tables up to date, or refuses when a newer keyturn has been here: what it wrote this one might
// misread. Forward only. db is a pool of its own with at least two connections.
func Migrate(ctx context.Context, db *sql.DB, m Migrations) error {
	const doing = "bringing the store's tables up to date"
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithTableName("migrations"), goose.WithGoMigrations(m.River)}
	if m.Locker != nil {
		options = append(options, goose.WithSessionLocker(m.Locker))
	}
	provider, err := goose.NewProvider(m.Dialect, db, m.Files, options...)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, doing)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return m.Explain(ctx, err)
	}
	if current > target {
		return fault.Newf(api.CodeUnavailable, "the store's tables are of version %d, and this keyturn knows them up to %d only", current, target).
			WithNext("run the newer keyturn that wrote them; an older one can't take over its store")
	}
	if current == target {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fault.Wrapf("", m.Explain(ctx, err), "%s from version %d to %d", doing, current, target)
	}
	return nil
}
