package storetest

import (
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/store"
)

func newDataset(id, name string) datasets.Dataset {
	return datasets.Dataset{
		ID: id, Name: name, Database: "postgres://db/x", DSN: []byte{1, 0, 2}, Table: "app.patients", Schema: "app", Relation: "patients",
		PK:      []string{"tenant", `odd "id"`},
		Columns: []datasets.Column{{Name: "ssn", Key: "phi", KeyID: envelope.KeyID{1, 2}, Type: "text"}, {Name: "x", Key: "pii", KeyID: envelope.KeyID{3}, Foreign: true}},
		Context: map[string]string{"table": "{table}", "ü": "<&>"}, Unbound: true, Created: epoch, Revision: 1,
	}
}

func testDatasets(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	a, b := newDataset("1", "b-one"), newDataset("2", "B-two")
	b.DSN, b.DSNEnv, b.Schema, b.Context, b.Unbound = nil, "APP_DSN", "", nil, false
	change(t, st, func(tx store.Tx) error {
		for _, d := range []datasets.Dataset{a, b} {
			d.Revision = 77 // the store counts by itself
			if err := tx.CreateDataset(ctx, d); err != nil {
				return err
			}
		}
		wantCode(t, tx.CreateDataset(ctx, newDataset("3", "b-one")), api.CodeConflict, "a taken name")
		wantCode(t, tx.CreateDataset(ctx, newDataset("1", "other")), api.CodeConflict, "a taken id")
		return nil
	})
	list := func(want ...datasets.Dataset) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Datasets(ctx)
			wantEqual(t, "the datasets", got, want)
			for _, d := range want {
				one, err := tx.Dataset(ctx, d.Name)
				wantEqual(t, "the dataset", one, d)
				if err != nil {
					return err
				}
			}
			return err
		})
	}
	list(b, a)
	changed := a
	changed.Columns, changed.DSN, changed.DSNEnv = changed.Columns[:1], nil, "ENV"
	change(t, st, func(tx store.Tx) error { return tx.UpdateDataset(ctx, changed) })
	refused(t, st, api.CodeConflict, "a stale revision", func(tx store.Tx) error { return tx.UpdateDataset(ctx, a) })
	changed.Revision++
	list(b, changed)

	refused(t, st, api.CodeConflict, "removing a stale revision", func(tx store.Tx) error { return tx.DeleteDataset(ctx, a.Name, 1) })
	refused(t, st, api.CodeNotFound, "removing nothing", func(tx store.Tx) error { return tx.DeleteDataset(ctx, "none", 1) })
	refused(t, st, api.CodeNotFound, "updating nothing", func(tx store.Tx) error { return tx.UpdateDataset(ctx, newDataset("9", "none")) })
	change(t, st, func(tx store.Tx) error { return tx.DeleteDataset(ctx, a.Name, 2) })
	list(b)
	refused(t, st, api.CodeNotFound, "a removed dataset", func(tx store.Tx) error { _, err := tx.Dataset(ctx, a.Name); return err })
	change(t, st, func(tx store.Tx) error { return tx.CreateDataset(ctx, a) })
}
