package reencrypt

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
)

// Census counts what every value of a dataset stands under now, after a durable flush of its database. It opens nothing
// and needs no key.
func (s *Service) Census(ctx context.Context, c *access.Caller, name string) (out api.Census, err error) {
	if err := named(name); err != nil {
		return out, err
	}
	in := gate.Intent{Action: access.DatasetRead, Type: audit.Reencryption, Verb: "census", Resource: resource(name)}
	err = s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		d, err := s.record(ctx, name)
		if err != nil {
			return err
		}
		tallies, err := s.count(ctx, &d)
		if err != nil {
			return err
		}
		out, err = s.census(ctx, &d, tallies)
		ev.Details.Dataset, ev.Details.Table, ev.Details.Rows = d.Name, d.Table, uint64(out.Rows)
		for _, col := range out.Columns {
			ev.Details.Plaintext += uint64(col.Plaintext)
			ev.Details.Unreadable += uint64(col.Unreadable)
		}
		return err
	})
	if err != nil {
		return api.Census{}, err
	}
	return out, nil
}

// count flushes a dataset's database and counts its columns.
func (s *Service) count(ctx context.Context, d *datasets.Dataset) ([]Tally, error) {
	a, err := s.attach(ctx, d)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if err := a.target.Flush(ctx); err != nil {
		return nil, err
	}
	return Count(ctx, a.target, len(a.columns))
}

func (s *Service) census(ctx context.Context, d *datasets.Dataset, tallies []Tally) (api.Census, error) {
	out := api.Census{Dataset: d.Name, TakenAt: s.cfg.Clock().UTC().Truncate(time.Microsecond), Columns: make([]api.CensusColumn, len(tallies))}
	for i := range tallies {
		t := &tallies[i]
		out.Rows = t.Rows()
		col := api.CensusColumn{Column: d.Columns[i].Name, Key: d.Columns[i].Key, Null: t.Null, Plaintext: t.Plaintext, Unreadable: t.Broken, Versions: []api.CensusVersion{}}
		for v, rows := range t.Versions {
			k, known, err := s.version(ctx, v)
			if err != nil {
				return out, err
			}
			if k == nil {
				col.Unreadable += rows
				continue
			}
			col.Versions = append(col.Versions, api.CensusVersion{Key: k.Name, Version: v.Version, State: string(known.State), Rows: rows})
		}
		slices.SortFunc(col.Versions, func(a, b api.CensusVersion) int {
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version))
		})
		out.Columns[i] = col
	}
	return out, nil
}

// version finds what a header names; a nil key when this store knows no such key or version.
func (s *Service) version(ctx context.Context, v VersionOf) (*keys.Key, keys.Version, error) {
	k, err := s.cfg.Ring.LookupID(ctx, v.Key)
	if fault.CodeOf(err) == api.CodeNotFound {
		return nil, keys.Version{}, nil
	}
	if err != nil {
		return nil, keys.Version{}, err
	}
	known, ok := k.Version(v.Version)
	if !ok {
		return nil, keys.Version{}, nil
	}
	return k, known, nil
}

// Dependent is a column that holds values under some version.
type Dependent struct {
	Dataset, Column string
	Rows            int64
}

// Dependents takes a census of every dataset, also of those that are another key's (values get copied), and answers what
// stands under the version. An error means
// that a database could not be asked: then nobody knows, and the version must not be destroyed.
func (s *Service) Dependents(ctx context.Context, id envelope.KeyID, version uint32) (found []Dependent, err error) {
	all, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		columns, err := s.Under(ctx, all[i], id, version)
		if err != nil {
			return nil, err
		}
		for _, c := range columns {
			if c.Rows > 0 {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// Under counts what stands under a version in every column of one dataset, zero included.
func (s *Service) Under(ctx context.Context, d datasets.Dataset, id envelope.KeyID, version uint32) ([]Dependent, error) {
	tallies, err := s.count(ctx, &d)
	if err != nil {
		return nil, fault.Wrapf("", err, "counting dataset %s", d.Name)
	}
	out := make([]Dependent, len(tallies))
	for col := range tallies {
		out[col] = Dependent{Dataset: d.Name, Column: d.Columns[col].Name, Rows: tallies[col].Versions[VersionOf{id, version}]}
	}
	return out, nil
}
