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
	"github.com/keyturn/keyturn/internal/store"
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
		tallies, err := s.count(ctx, &d, s.known(&d))
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
func (s *Service) count(ctx context.Context, d *datasets.Dataset, known Known) ([]Tally, error) {
	a, err := s.attach(ctx, d, Session{})
	if err != nil {
		return nil, err
	}
	defer a.close()
	if err := a.target.Flush(ctx); err != nil {
		return nil, err
	}
	return Count(ctx, a.target, len(a.columns), known)
}

// known is every version of every key of the store, so that nothing is called unknown but what is nobody's, however many
// invented keys stand around it. Which keys there are is asked once, if a value names another than the dataset's own. What
// is kept, and read, is as much as the store has keys, not as the table has rows.
func (s *Service) known(d *datasets.Dataset) Known {
	newest := map[envelope.KeyID]uint32{} // of the keys that were met; numbers are dense from 1
	var all map[envelope.KeyID]bool
	return func(ctx context.Context, v VersionOf) (_ bool, err error) {
		n, met := newest[v.Key]
		if met {
			return v.Version <= n, nil
		}
		if !slices.ContainsFunc(d.Columns, func(c datasets.Column) bool { return c.KeyID == v.Key }) {
			if all == nil {
				if all, err = s.keyIDs(ctx); err != nil {
					return false, err
				}
			}
			if !all[v.Key] {
				return false, nil
			}
		}
		err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
			k, err := tx.KeyByID(ctx, v.Key) // a list's rows aren't checked; this is
			n = uint32(len(k.Versions))
			return err
		})
		if err != nil {
			return false, err
		}
		newest[v.Key] = n
		return v.Version <= n, nil
	}
}

func (s *Service) keyIDs(ctx context.Context) (ids map[envelope.KeyID]bool, err error) {
	const page = 500
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		ids = map[envelope.KeyID]bool{}
		for after := ""; ; {
			list, err := tx.Keys(ctx, after, page)
			for i := range list {
				ids[list[i].ID], after = true, list[i].Name
			}
			if err != nil || len(list) < page {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

func (s *Service) census(ctx context.Context, d *datasets.Dataset, tallies []Tally) (api.Census, error) {
	out := api.Census{Dataset: d.Name, TakenAt: s.cfg.Clock().UTC().Truncate(time.Microsecond), Columns: make([]api.CensusColumn, len(tallies))}
	for i := range tallies {
		t := &tallies[i]
		out.Rows = t.Rows()
		col := api.CensusColumn{Column: d.Columns[i].Name, Key: d.Columns[i].Key, Null: t.Null, Plaintext: t.Plaintext, Unreadable: t.Broken + t.Unknown, Versions: []api.CensusVersion{}}
		err := s.cfg.Store.View(ctx, func(tx store.Tx) error {
			col.Versions = col.Versions[:0]
			for v, rows := range t.Versions {
				k, err := tx.KeyByID(ctx, v.Key)
				if err != nil {
					return err
				}
				version, _ := k.Version(v.Version)
				col.Versions = append(col.Versions, api.CensusVersion{Key: k.Name, Version: v.Version, State: string(version.State), Rows: rows})
			}
			return nil
		})
		if err != nil {
			return out, err
		}
		slices.SortFunc(col.Versions, func(a, b api.CensusVersion) int {
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version))
		})
		out.Columns[i] = col
	}
	return out, nil
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
	of := VersionOf{id, version}
	tallies, err := s.count(ctx, &d, only(of))
	if err != nil {
		return nil, fault.Wrapf("", err, "counting dataset %s", d.Name)
	}
	out := make([]Dependent, len(tallies))
	for col := range tallies {
		out[col] = Dependent{Dataset: d.Name, Column: d.Columns[col].Name, Rows: tallies[col].Versions[of]}
	}
	return out, nil
}

// only tells these versions apart and no others: whatever else stands in the table, they are counted.
func only(versions ...VersionOf) Known {
	wanted := map[VersionOf]bool{}
	for _, v := range versions {
		wanted[v] = true
	}
	return func(_ context.Context, v VersionOf) (bool, error) { return wanted[v], nil }
}
