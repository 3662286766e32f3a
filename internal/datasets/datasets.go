// Package datasets is the record of a dataset: a registered place in somebody's database (one table, its key columns and
// its ciphertext columns) that holds our ciphertexts. It is language only: no I/O, no clock, no database driver. The work
// on a dataset is the room reencrypt's; this record is what a store keeps and what that room starts from.
//
//	d := datasets.Dataset{
//		Name: "patients", Table: "patients", PK: []string{"id"},
//		Columns: []datasets.Column{{Name: "ssn", Key: "phi", KeyID: id}},
//	}
//	d.Context = datasets.DefaultTemplate("", d.PK)
//	t, err := datasets.Compile(d, "ssn")       // what every value of the column is bound to
//	ctx, err := t.AppendContext(nil, [][]byte{[]byte("17")})
//
// # What a ciphertext is bound to
//
// The template of a dataset names, for each context key, a text with at most one placeholder: {table}, {column}, {pk} or
// {pk.NAME}. The default binds all of table, column and primary key, so a ciphertext that is copied to another row or
// column does not open there. One placeholder a text is a rule and not a shortage: "{pk.a}{pk.b}" would be the same text
// for ("1", "23") and ("12", "3").
package datasets

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
)

// Dataset is one registered table.
type Dataset struct {
	// ID is 32 lower-case hexadecimal digits, random: what DSN is bound to, so that a sealed connection of a removed
	// dataset can't be put into one that took over its name.
	ID   string
	Name string // unique; the rules of keys.ValidateName

	Database string // connection URL without its password: safe to print
	DSN      []byte // the whole connection URL, or DSNEnv, sealed under the KEK "secrets" and bound to all else in the record but Revision
	DSNEnv   string // name of the server's environment variable that holds the URL; empty when DSN is set

	Table    string // as it was given when the dataset was added: what {table} in the context stands for
	Schema   string // as the database resolved Table; empty where a database has no schemas
	Relation string // the bare name of the table inside Schema, exactly as the catalogue spells it

	PK      []string // key columns, in the order in which rows are read; never empty
	Columns []Column // in name order; never empty
	Context map[string]string
	// Unbound says that Context may leave out parts of the primary key: its ciphertexts can then be moved between rows
	// unnoticed. Meant for applications that seal before they know the row.
	Unbound bool

	Created  time.Time
	Revision int64 // 1 when created, +1 for each update; for compare-and-swap
}

// Column is one ciphertext column and the key that protects it. The key is held by its id, because that is what stands in
// the ciphertexts; the name is for people.
type Column struct {
	Name  string
	Key   string
	KeyID envelope.KeyID
	Type  string // the database's own name of the type when the dataset was added
	// Foreign says that its values were ciphertexts of another system when the dataset was added: what isn't ours isn't taken for
	// plaintext because of that. Left out of the record's form while it is false, as in records of earlier releases.
	Foreign bool `json:",omitzero"`
}

// Column finds a column by its name.
func (d *Dataset) Column(name string) (Column, bool) {
	for _, c := range d.Columns {
		if c.Name == name {
			return c, true
		}
	}
	return Column{}, false
}

// SettingBound is the setting of the store, signed, that says that every dataset's connection is sealed together with its record.
// Before it is there, connections may be sealed as earlier releases did it.
const SettingBound = "datasets_bound"

// Tx is what a store's transaction does for datasets. Names that don't exist are not_found; a revision that somebody
// else moved on is conflict.
type Tx interface {
	CreateDataset(ctx context.Context, d Dataset) error        // conflict when the name is taken; stores Revision 1
	Dataset(ctx context.Context, name string) (Dataset, error) // by exact name
	Datasets(ctx context.Context) ([]Dataset, error)           // all, in name order
	UpdateDataset(ctx context.Context, d Dataset) error        // WHERE revision = d.Revision; revision+1
	DeleteDataset(ctx context.Context, name string, revision int64) error
}
