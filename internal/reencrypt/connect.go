package reencrypt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// driver chooses the driver of a connection URL.
func (s *Service) driver(dsn DSN) (Driver, error) {
	if d, ok := s.drivers[dsn.Scheme()]; ok {
		return d, nil
	}
	schemes := make([]string, 0, len(s.drivers))
	for scheme := range s.drivers {
		schemes = append(schemes, scheme+"://")
	}
	slices.Sort(schemes)
	return nil, fault.New(api.CodeInvalid, "reading the database's URL: it begins with no scheme that keyturn knows").WithField("db").
		WithNext("use one of " + strings.Join(schemes, ", "))
}

// binding ties a sealed connection to its dataset, as the record says it is: put into another one's row it doesn't open, and
// neither does it when another table, column, key or context was written into the record.
func binding(d *datasets.Dataset) (keyring.Binding, error) {
	form, err := formOf(d)
	return keyring.Binding{Kind: "dataset-dsn", ID: d.ID + form, Version: 1}, err
}

// formOf is a hash over everything in a dataset's record but its sealed connection, in hexadecimal. A field that a later release adds
// to the record must be left out of its JSON while it is empty, or no connection opens any more.
func formOf(d *datasets.Dataset) (string, error) {
	r := *d
	r.DSN, r.Revision = nil, 0
	text, err := json.Marshal(r)
	if err != nil {
		return "", fault.Wrap(api.CodeInternal, err, "reading a dataset's record")
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// seal completes a record: it puts in the connection URL with its password, sealed under the KEK "secrets", or, where that
// stands in a variable, the variable's name. Nothing of the record may change afterwards.
func (s *Service) seal(ctx context.Context, d *datasets.Dataset, dsn DSN) error {
	b, err := binding(d)
	if err != nil {
		return err
	}
	text := dsn.sealedText()
	if d.DSNEnv != "" {
		text = d.DSNEnv
	}
	d.DSN, err = s.cfg.Ring.Seal(ctx, keys.KEKSecrets, b, []byte(text))
	return err
}

// dsn is a dataset's connection URL, and proves that the record is the one that was registered: all work on a dataset begins
// with it.
func (s *Service) dsn(ctx context.Context, d *datasets.Dataset) (DSN, error) {
	text, err := s.unseal(ctx, d)
	if fault.CodeOf(err) == api.CodeIntegrity {
		var bound bool
		if bound, err = s.bound(ctx); err == nil && !bound {
			text, err = s.unsealEarlier(ctx, d)
		} else if err == nil {
			_, err = s.unseal(ctx, d)
		}
	}
	if err != nil {
		return DSN{}, fault.Wrapf("", err, "opening the connection of dataset %s", d.Name).
			WithNext("if its record in the store was changed, find out who writes to the database; remove the dataset and add it anew")
	}
	if d.DSNEnv != "" {
		return s.fromEnv(d.DSNEnv)
	}
	return dsnOf(text), nil
}

func (s *Service) unseal(ctx context.Context, d *datasets.Dataset) (string, error) {
	b, err := binding(d)
	if err != nil {
		return "", err
	}
	text, err := s.cfg.Ring.Unseal(ctx, keys.KEKSecrets, b, d.DSN)
	return string(text), err
}

// unsealEarlier opens a connection as earlier releases sealed it: bound to the dataset's id only, or, where a variable names it,
// not at all.
func (s *Service) unsealEarlier(ctx context.Context, d *datasets.Dataset) (string, error) {
	if d.DSNEnv != "" && len(d.DSN) == 0 {
		return d.DSNEnv, nil
	}
	text, err := s.cfg.Ring.Unseal(ctx, keys.KEKSecrets, keyring.Binding{Kind: "dataset-dsn", ID: d.ID, Version: 1}, d.DSN)
	return string(text), err
}

// bound says whether connections of earlier releases are refused.
func (s *Service) bound(ctx context.Context) (is bool, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		is, err = boundIn(ctx, tx)
		return err
	})
	return is, err
}

func boundIn(ctx context.Context, tx store.Tx) (bool, error) {
	_, err := tx.Meta(ctx, datasets.SettingBound)
	if fault.CodeOf(err) == api.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

// BindRecords seals every connection that an earlier release sealed together with its record, and has the others refused from then on. Call it
// at a start at which no process of such a release runs any more: those can't open them. It does nothing the second time.
func (s *Service) BindRecords(ctx context.Context) error {
	if bound, err := s.bound(ctx); err != nil || bound {
		return err
	}
	return s.cfg.Store.Change(ctx, func(tx store.Tx) error {
		if bound, err := boundIn(ctx, tx); err != nil || bound {
			return err
		}
		list, err := tx.Datasets(ctx)
		if err != nil {
			return err
		}
		for _, d := range list {
			if _, err := s.unseal(ctx, &d); fault.CodeOf(err) != api.CodeIntegrity {
				if err != nil {
					return err
				}
				continue
			}
			text, err := s.unsealEarlier(ctx, &d)
			if fault.CodeOf(err) == api.CodeIntegrity {
				continue // it opens neither way, and whoever uses it is told
			}
			if err == nil {
				err = s.seal(ctx, &d, dsnOf(text))
			}
			if err == nil {
				err = tx.UpdateDataset(ctx, d)
			}
			if err != nil {
				return fault.Wrapf("", err, "sealing the connection of dataset %s with its record", d.Name)
			}
		}
		return tx.SetMeta(ctx, datasets.SettingBound, "1")
	})
}

// sign has the arguments of a job say who made them: keyturn, for a dataset as its record is now. Whoever writes a job of his
// own into the database could otherwise have values decrypted.
func (s *Service) sign(ctx context.Context, kind Kind, d *datasets.Dataset, a *args) error {
	form, err := jobForm(kind, d, *a)
	if err == nil {
		a.MAC, err = s.cfg.Ring.MAC(ctx, keys.KEKAudit, jobLabel, form)
	}
	return err
}

// genuine refuses arguments that sign didn't make for this kind of work on this dataset.
func (s *Service) genuine(ctx context.Context, kind Kind, d *datasets.Dataset, a args) error {
	form, err := jobForm(kind, d, a)
	if err == nil {
		err = s.cfg.Ring.CheckMAC(ctx, keys.KEKAudit, jobLabel, form, a.MAC)
	}
	if fault.CodeOf(err) == api.CodeIntegrity {
		return fault.New(api.CodeIntegrity, "working on the dataset: the job was not written by keyturn, or the dataset's record was changed since").
			WithNext("find out who writes to the database, and start the work anew")
	}
	return err
}

const jobLabel = "dataset-job"

func jobForm(kind Kind, d *datasets.Dataset, a args) ([]byte, error) {
	a.MAC = ""
	text, err := json.Marshal(a)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	record, err := formOf(d)
	return append([]byte(string(kind)+"\n"+record+"\n"), text...), err
}

// fromEnv reads the URL in a variable. Only variables that were set for this purpose are read, and found to be set or not:
// the others hold what a request has no business with.
func (s *Service) fromEnv(name string) (DSN, error) {
	if !variableName.MatchString(name) {
		return DSN{}, fault.New(api.CodeInvalid, "the environment variable's name isn't KEYTURN_DATASET_ with letters, digits and _ after it").
			WithField("dbEnv").WithNext("set the URL in a variable of such a name, for the process that works on datasets")
	}
	text := s.cfg.Getenv(name)
	if text == "" {
		return DSN{}, fault.Newf(api.CodeInvalid, "the environment variable %s is not set where keyturn runs", name).WithField("dbEnv").
			WithNext("set it for the process that works on datasets, then try again")
	}
	return NewDSN(text), nil
}

// attached is a dataset with an open connection to its table as it is now.
type attached struct {
	*datasets.Dataset
	db      Database
	table   *Table
	target  Target
	columns []string
}

// attach connects to a dataset's database and looks at its table again: it may have changed since it was registered.
func (s *Service) attach(ctx context.Context, d *datasets.Dataset, session Session) (*attached, error) {
	dsn, err := s.dsn(ctx, d)
	if err != nil {
		return nil, err
	}
	driver, err := s.driver(dsn)
	if err != nil {
		return nil, err
	}
	db, err := open(ctx, driver, dsn, session)
	if err != nil {
		return nil, err
	}
	a, err := lookAt(ctx, db, d)
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return a, nil
}

func lookAt(ctx context.Context, db Database, d *datasets.Dataset) (a *attached, err error) {
	a = &attached{Dataset: d, db: db}
	for _, c := range d.Columns {
		a.columns = append(a.columns, c.Name)
	}
	if a.table, err = db.Describe(ctx, relation(d)); err != nil {
		return nil, err
	}
	if err := a.table.Check(d.PK, a.columns); err != nil {
		return nil, err
	}
	a.target, err = db.Target(ctx, a.table, d.PK, a.columns)
	return a, err
}

// relation is the table as the catalogue spells it, in SQL's quoted form.
func relation(d *datasets.Dataset) string {
	if d.Relation == "" {
		return d.Table
	}
	if d.Schema == "" {
		return Quoted(d.Relation)
	}
	return Quoted(d.Schema) + "." + Quoted(d.Relation)
}

func (a *attached) close() { _ = a.db.Close() }

// fits checks that the longest ciphertext that a run would write has room in its column. Only columns with a limit are
// measured. Of values that another system encrypted nobody knows yet how long they are: it is enough that there is room for
// any.
func (a *attached) fits(ctx context.Context, suites map[string]envelope.Suite, imported bool) error {
	for i, name := range a.columns {
		c, _ := a.table.Column(name)
		if c.Width == 0 {
			continue
		}
		longest, err := int64(0), error(nil)
		if !imported {
			longest, err = a.target.Longest(ctx, i)
		}
		if err != nil {
			return err
		}
		needed := suites[name].SealedLen(int(longest))
		if c.Form == Text {
			needed = envelope.TextLen(needed)
		}
		if needed > c.Width {
			return fault.Newf(api.CodeInvalid, "looking at column %q: it has room for %d characters, and its longest value, of %d bytes, needs %d as a ciphertext",
				name, c.Width, longest, needed).WithField("columns").
				WithNext(fmt.Sprintf("widen the column to at least %d, or to text without a limit, or use a key of suite 2", needed))
		}
	}
	return nil
}
