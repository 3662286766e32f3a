package reencrypt

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Add registers a table. Everything is looked at first (the database, the table, its key, its columns, the room in them,
// the keys that protect them), and nothing of the database is written. The answer's notes say what work on the table will
// do. Errors: invalid and not_found with the field at fault, conflict when the name is taken, denied for a key that the
// caller may not encrypt and decrypt with.
func (s *Service) Add(ctx context.Context, c *access.Caller, in api.AddDatasetRequest) (api.Dataset, error) {
	if err := keys.ValidateName(in.Name); err != nil {
		return api.Dataset{}, err
	}
	var d datasets.Dataset
	var notes []string
	var checked error
	if allowed(c, access.DatasetWrite, resource(in.Name)) {
		d, notes, checked = s.prepare(ctx, c, in)
	}
	if in.DB == "" && in.DBEnv != "" && fault.FieldOf(checked) == "db" { // which nobody gave
		checked = fault.Wrapf("", checked, "using the URL in %s", in.DBEnv).WithField("dbEnv")
	}
	var lacks *denial
	if errors.As(checked, &lacks) {
		err := s.deny(ctx, c, lacks, audit.ConfigWrite, "dataset_added")
		return api.Dataset{}, fault.Wrapf("", err, "registering a table under key %s", lacks.Resource.Name).WithField("columns").
			WithNext("have an owner register it, or ask one for --allow key.encrypt --allow key.decrypt: whoever connects a table to a key must be allowed to use that key")
	}
	intent := gate.Intent{Action: access.DatasetWrite, Type: audit.ConfigWrite, Verb: "dataset_added", Resource: resource(in.Name)}
	err := s.cfg.Gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		if checked != nil {
			return checked
		}
		ev.Details.Dataset, ev.Details.Table = d.Name, d.Table
		return tx.CreateDataset(ctx, d)
	})
	if err != nil {
		return api.Dataset{}, err
	}
	return view(&d, notes), nil
}

// prepare makes the record and checks it against the database.
func (s *Service) prepare(ctx context.Context, c *access.Caller, in api.AddDatasetRequest) (d datasets.Dataset, notes []string, err error) {
	d = datasets.Dataset{ID: randomID(), Name: in.Name, Table: in.Table, DSNEnv: in.DBEnv, Unbound: in.Unbound, Created: s.cfg.Clock().UTC().Truncate(time.Microsecond)}
	dsn, err := s.connection(c, in)
	if err != nil {
		return d, nil, err
	}
	driver, err := s.driver(dsn)
	if err != nil {
		return d, nil, err
	}
	if d.Database, err = driver.Parse(dsn); err != nil {
		return d, nil, err
	}
	suites, err := s.columns(ctx, c, &d, in.Columns)
	if err != nil {
		return d, nil, err
	}
	db, err := open(ctx, driver, dsn, Session{})
	if err != nil {
		return d, nil, err
	}
	defer db.Close()
	if notes, err = complete(ctx, db, &d, in, suites); err != nil {
		return d, nil, err
	}
	return d, notes, s.seal(ctx, &d, dsn)
}

// connection is the URL of the request. A file of this machine, and its own addresses, may be named by callers on this machine
// only: over the network, the server's operator names it, in a variable of the server's environment.
func (s *Service) connection(c *access.Caller, in api.AddDatasetRequest) (DSN, error) {
	switch {
	case (in.DB == "") == (in.DBEnv == ""):
		return DSN{}, fault.New(api.CodeInvalid, "exactly one of the database's URL and the name of an environment variable is needed").WithField("db")
	case in.DBEnv != "":
		return s.fromEnv(in.DBEnv)
	}
	dsn := NewDSN(in.DB)
	dsn.network = c == nil || !c.Local()
	if dsn.network && namesFile(dsn) {
		return DSN{}, fault.New(api.CodeInvalid, "a file or socket on the server can't be named over the network").WithField("db").
			WithNext(nameItHere)
	}
	return dsn, nil
}

// namesFile says whether a URL names a file of the machine: a database, or the socket of a server, which would take whoever
// asks through it for the user that keyturn runs as. It looks for the parameters themselves, whatever the driver makes of
// them.
func namesFile(dsn DSN) bool {
	if dsn.Scheme() == "sqlite" {
		return true
	}
	_, query, _ := strings.Cut(dsn.Reveal(), "?")
	values, err := url.ParseQuery(query)
	return err != nil || values.Has("socket") || values.Has("host")
}

// columns fills in the columns with their keys, and gives the suite of each.
func (s *Service) columns(ctx context.Context, c *access.Caller, d *datasets.Dataset, wanted map[string]string) (map[string]envelope.Suite, error) {
	suites := map[string]envelope.Suite{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		key := wanted[name]
		if keys.ValidateName(key) != nil {
			return nil, fault.New(api.CodeNotFound, "there is no key of this name").WithField("columns").WithNext("keyturn key list names them")
		}
		if err := missing(c, registering(key)); err != nil {
			return nil, err
		}
		k, err := s.cfg.Ring.Lookup(ctx, key)
		if err != nil {
			return nil, err
		}
		suites[name] = k.Suite
		d.Columns = append(d.Columns, datasets.Column{Name: name, Key: k.Name, KeyID: k.ID})
	}
	return suites, nil
}

// registering is what connecting a table to a key asks for on the key. Whoever owns the table could otherwise have values of
// his own choice sealed, or sealed ones opened, under a key that he may not use.
func registering(key string) []access.Right {
	r := access.Resource{Kind: access.KindKey, Name: key}
	return []access.Right{{Action: access.KeyRead, Resource: r}, {Action: access.KeyEncrypt, Resource: r}, {Action: access.KeyDecrypt, Resource: r}}
}

// complete fills in what the catalogue knows, and checks that the work will be possible.
func complete(ctx context.Context, db Database, d *datasets.Dataset, in api.AddDatasetRequest, suites map[string]envelope.Suite) ([]string, error) {
	if in.Table == "" {
		return nil, fault.New(api.CodeInvalid, "the table isn't named").WithField("table")
	}
	t, err := db.Describe(ctx, in.Table)
	if err != nil {
		return nil, err
	}
	d.Schema, d.Relation = t.Schema, t.Name
	if d.PK = t.KeyOrder(in.PK); len(d.PK) == 0 {
		d.PK = t.PrimaryKey()
	}
	if len(d.PK) == 0 || len(d.Columns) == 0 {
		return nil, firstOf(t.Check(d.PK, nil), fault.New(api.CodeInvalid, "no column is named").WithField("columns").WithNext("--column NAME=KEY, once for each column"))
	}
	if d.Context = in.Context; len(d.Context) == 0 {
		d.Context = datasets.DefaultTemplate("", d.PK)
	}
	for i := range d.Columns {
		d.Columns[i].Foreign = in.Foreign
		if c, ok := t.Column(d.Columns[i].Name); ok {
			d.Columns[i].Type = c.Type
		}
	}
	a, err := lookAt(ctx, db, d)
	if err != nil {
		return nil, err
	}
	if err := datasets.Validate(d); err != nil {
		return nil, err
	}
	if err := a.fits(ctx, suites, in.Foreign); err != nil {
		return nil, err
	}
	return append(a.table.NotesFor(a.columns), size(a.table)), nil
}

// size says what a whole run over the table leaves behind in a database that keeps old versions of rows.
func size(t *Table) string {
	if t.Rows > 0 {
		return fmt.Sprintf("about %d rows: a run rewrites each of them once", t.Rows)
	}
	return "a run rewrites every row once"
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// randomID is 32 hexadecimal digits.
func randomID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}
