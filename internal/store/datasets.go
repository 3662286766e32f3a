package store

import (
	"context"
	"encoding/json"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

const datasetColumns = `name, id, address, dsn, dsn_env, table_name, schema_name, relation, pk, columns, context, unbound, created, revision`

// datasetColumn is a column as it is stored.
type datasetColumn struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	KeyID   string `json:"keyId"`
	Type    string `json:"type"`
	Foreign bool   `json:"foreign,omitempty"` // rows of earlier releases don't have it
}

func readDataset(row scanner) (d datasets.Dataset, err error) {
	var pk, columns, template string
	err = row.Scan(&d.Name, &d.ID, &d.Database, &d.DSN, &d.DSNEnv, &d.Table, &d.Schema, &d.Relation, &pk, &columns,
		&template, &d.Unbound, into{&d.Created}, &d.Revision)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal([]byte(template), &d.Context); err != nil {
		return d, fault.Wrap(api.CodeIntegrity, err, "reading the context of a dataset")
	}
	if err := parseList(pk, &d.PK); err != nil {
		return d, err
	}
	return d, parseColumns(columns, &d)
}

func parseColumns(text string, d *datasets.Dataset) error {
	const doing = "reading the columns of a dataset"
	var stored []datasetColumn
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return fault.Wrap(api.CodeIntegrity, err, doing)
	}
	for _, c := range stored {
		id, err := envelope.ParseKeyID(c.KeyID)
		if err != nil {
			return fault.Wrap(api.CodeIntegrity, err, doing)
		}
		d.Columns = append(d.Columns, datasets.Column{Name: c.Name, Key: c.Key, KeyID: id, Type: c.Type, Foreign: c.Foreign})
	}
	return nil
}

// datasetArgs are the values of a dataset's row up to created, in the order of datasetColumns.
func datasetArgs(d datasets.Dataset) ([]any, error) {
	const doing = "storing a dataset"
	columns := make([]datasetColumn, len(d.Columns))
	for i, c := range d.Columns {
		columns[i] = datasetColumn{Name: c.Name, Key: c.Key, KeyID: c.KeyID.String(), Type: c.Type, Foreign: c.Foreign}
	}
	columnText, err := json.Marshal(columns)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, doing)
	}
	template, err := json.Marshal(d.Context)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, doing)
	}
	pk, err := formatList(d.PK)
	if err != nil {
		return nil, err
	}
	return []any{d.Name, d.ID, d.Database, d.DSN, d.DSNEnv, d.Table, d.Schema, d.Relation, pk, string(columnText), string(template), d.Unbound, d.Created}, nil
}

// CreateDataset implements datasets.Tx.
func (t *txn) CreateDataset(ctx context.Context, d datasets.Dataset) error {
	args, err := datasetArgs(d)
	if err != nil {
		return err
	}
	return t.mustChange(ctx, taken("dataset"), "creating a dataset",
		`INSERT INTO datasets (`+datasetColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1)
		ON CONFLICT DO NOTHING`, args...)
}

// Dataset implements datasets.Tx.
func (t *txn) Dataset(ctx context.Context, name string) (datasets.Dataset, error) {
	return single(ctx, t, notFound("dataset"), "reading a dataset", readDataset,
		`SELECT `+datasetColumns+` FROM datasets WHERE name = $1`, name)
}

// Datasets implements datasets.Tx.
func (t *txn) Datasets(ctx context.Context) ([]datasets.Dataset, error) {
	return all(ctx, t, "listing datasets", readDataset, `SELECT `+datasetColumns+` FROM datasets ORDER BY name`)
}

// UpdateDataset implements datasets.Tx. A dataset keeps its name and its time of creation.
func (t *txn) UpdateDataset(ctx context.Context, d datasets.Dataset) error {
	args, err := datasetArgs(d)
	if err != nil {
		return err
	}
	args[len(args)-1] = d.Revision
	return t.changeDataset(ctx, d.Name, "changing a dataset",
		`UPDATE datasets SET id = $2, address = $3, dsn = $4, dsn_env = $5, table_name = $6, schema_name = $7, relation = $8,
			pk = $9, columns = $10, context = $11, unbound = $12, revision = revision + 1
		WHERE name = $1 AND revision = $13`, args...)
}

// DeleteDataset implements datasets.Tx.
func (t *txn) DeleteDataset(ctx context.Context, name string, revision int64) error {
	err := t.changeDataset(ctx, name, "removing a dataset", `DELETE FROM datasets WHERE name = $1 AND revision = $2`, name, revision)
	if err == nil {
		t.destroyed = true // its sealed connection
	}
	return err
}

// changeDataset runs a statement that is bound to a revision: not_found or conflict when it finds no row.
func (t *txn) changeDataset(ctx context.Context, name, doing, query string, args ...any) error {
	n, err := t.exec(ctx, doing, query, args...)
	if err != nil || n > 0 {
		return err
	}
	if _, err := t.Dataset(ctx, name); err != nil {
		return err
	}
	return stale("dataset")
}
