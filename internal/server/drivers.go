package server

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awskms"
	"github.com/keyturn/keyturn/internal/keyring/awssecrets"
	"github.com/keyturn/keyturn/internal/keyring/env"
	"github.com/keyturn/keyturn/internal/keyring/escrow"
	"github.com/keyturn/keyturn/internal/keyring/file"
	"github.com/keyturn/keyturn/internal/keyring/pkcs11"
	"github.com/keyturn/keyturn/internal/keyring/vaultkv"
	"github.com/keyturn/keyturn/internal/keyring/vaulttransit"
	"github.com/keyturn/keyturn/internal/reencrypt"
	reencryptmysql "github.com/keyturn/keyturn/internal/reencrypt/mysql"
	reencryptpg "github.com/keyturn/keyturn/internal/reencrypt/postgres"
	reencryptsqlite "github.com/keyturn/keyturn/internal/reencrypt/sqlite"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// masterDrivers is the table of master-key providers. The scheme of a URL chooses.
var masterDrivers = []keyring.Driver{
	file.Driver{},
	env.Driver{},
	escrow.Driver{},
	pkcs11.New(),
	awskms.Driver{},
	awssecrets.Driver{},
	vaultkv.Driver{},
	vaulttransit.Driver{},
}

// datasetDrivers is the table of databases whose tables can be datasets.
var datasetDrivers = []reencrypt.Driver{reencryptpg.Driver{}, reencryptmysql.Driver{}, reencryptsqlite.Driver{}}

// storeOpener opens a store; dir is the data directory.
type storeOpener func(ctx context.Context, dir string, dsn DSN) (store.Store, error)

// storeDrivers is the table of stores, by the scheme of their address; "sqlite" alone is one too.
var storeDrivers = map[string]storeOpener{
	"sqlite":     openSQLite,
	"postgres":   openPostgres,
	"postgresql": openPostgres,
}

func openSQLite(ctx context.Context, dir string, dsn DSN) (store.Store, error) {
	return sqlite.Open(ctx, sqlitePath(dir, dsn), sqlite.Config{})
}

func sqlitePath(dir string, dsn DSN) string {
	if u, err := url.Parse(dsn.Reveal()); err == nil && u.Path != "" && u.Scheme == "sqlite" {
		return u.Path
	}
	return filepath.Join(dir, DatabaseFile)
}

// storeThere refuses to open a directory whose SQLite file is gone: the driver would make an empty one, and only init makes stores.
func storeThere(dir string, dsn DSN) error {
	text := dsn.Reveal()
	path := sqlitePath(dir, dsn)
	if text != "sqlite" && !strings.HasPrefix(text, "sqlite:") || exists(path) {
		return nil
	}
	return fault.Newf(api.CodeNotFound, "opening the store: its database %s is gone", path).WithField("store").
		WithNext("put it back, or a backup of it; keyturn init makes a new store in another directory")
}

func openPostgres(ctx context.Context, _ string, dsn DSN) (store.Store, error) {
	return postgres.Open(ctx, dsn.Reveal(), postgres.Config{})
}

// storeDriver finds the opener of an address, which it doesn't quote in its error.
func storeDriver(text string) (storeOpener, error) {
	if text == "sqlite" {
		return openSQLite, nil
	}
	u, err := url.Parse(text)
	if err == nil && strings.Contains(text, "://") && (u.Scheme != "sqlite" || u.Host == "" && filepath.IsAbs(u.Path)) {
		if open := storeDrivers[u.Scheme]; open != nil {
			return open, nil
		}
	}
	return nil, fault.New(api.CodeInvalid, "reading the store's address: "+ruleTexts["store"]).WithField("store")
}

func masterDriver(text string) (keyring.Driver, error) { return keyring.DriverFor(masterDrivers, text) }

// GenerateMaster makes a new master key where its URL says, by a provider that can.
func GenerateMaster(ctx context.Context, url string) error {
	d, err := masterDriver(url)
	if err != nil {
		return err
	}
	g, ok := d.(keyring.Generator)
	if !ok {
		return fault.New(api.CodeInvalid, "making a master key: "+d.Scheme()+": can't make one").WithField("at").
			WithNext("print one and put it there: keyturn master generate")
	}
	return g.Generate(ctx, url)
}
