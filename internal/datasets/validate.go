package datasets

import (
	"slices"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// Limits of what one dataset may name.
const (
	MaxColumns    = 64
	MaxKeyColumns = 16
	maxIdentifier = 512 // bytes; PostgreSQL ends at 63, SQLite nowhere
)

// Validate checks what can be said of d without its database: the shape of its lists, its identifiers, its template.
// The name is checked where names of all kinds are (keys.ValidateName). All errors are of code invalid and name a field.
func Validate(d *Dataset) error {
	switch {
	case len(d.PK) == 0 || len(d.PK) > MaxKeyColumns:
		return invalid("pk", "it takes 1 to 16 key columns")
	case len(d.Columns) == 0 || len(d.Columns) > MaxColumns:
		return invalid("columns", "it takes 1 to 64 columns")
	}
	if err := validIdentifier("table", d.Table); err != nil {
		return err
	}
	if err := validIdentifiers("pk", d.PK); err != nil {
		return err
	}
	names := make([]string, len(d.Columns))
	for i, c := range d.Columns {
		names[i] = c.Name
		if slices.Contains(d.PK, c.Name) {
			// The key finds the row again; encrypting it would make every row another one.
			return fault.Newf(api.CodeInvalid, "reading a dataset: column %q is part of the primary key", c.Name).
				WithField("columns").WithNext("encrypt other columns, or give the table a key that says nothing")
		}
	}
	if err := validIdentifiers("columns", names); err != nil {
		return err
	}
	return d.validateTemplate()
}

// validateTemplate parses every text and, unless d is Unbound, asks for what keeps a ciphertext in its place: each key
// column, and the column's own name when several columns share a key.
func (d *Dataset) validateTemplate() error {
	bound := make([]bool, len(d.PK))
	byColumn := false
	size := 2
	for name, text := range d.Context {
		v, err := d.parse(name, text)
		if err != nil {
			return err
		}
		if !utf8.ValidString(name) || !utf8.ValidString(text) {
			return badTemplate(name, "it must be valid UTF-8")
		}
		if size += 4 + len(name) + len(text); size > envelope.MaxContext/2 {
			return invalid("context", "it is longer than 4 KiB, which leaves too little room for the rows' keys")
		}
		byColumn = byColumn || v.hold == holdColumn
		if v.key >= 0 {
			bound[v.key] = true
		}
	}
	if d.Unbound {
		return nil
	}
	if i := slices.Index(bound, false); i >= 0 {
		return fault.Newf(api.CodeInvalid, "reading a dataset: the context leaves out key column %q, so a ciphertext could be moved to another row unnoticed", d.PK[i]).
			WithField("context").WithNext("add a context key with {pk." + d.PK[i] + "} so that a ciphertext can't be moved")
	}
	if !byColumn && d.sharesKey() {
		return fault.New(api.CodeInvalid, "reading a dataset: several columns share a key and the context leaves out {column}, so their ciphertexts could be exchanged unnoticed").
			WithField("context").WithNext("add a context key with {column} so that a ciphertext can't be moved")
	}
	return nil
}

func (d *Dataset) sharesKey() bool {
	for i, c := range d.Columns {
		if slices.ContainsFunc(d.Columns[:i], func(o Column) bool { return o.KeyID == c.KeyID }) {
			return true
		}
	}
	return false
}

func validIdentifiers(field string, names []string) error {
	for i, name := range names {
		if err := validIdentifier(field, name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fault.Newf(api.CodeInvalid, "reading a dataset: column %q is named twice", name).WithField(field)
		}
	}
	return nil
}

// validIdentifier refuses only what no database can hold. Whatever else a name is made of, the drivers quote it.
func validIdentifier(field, name string) error {
	if name == "" || len(name) > maxIdentifier || !utf8.ValidString(name) || slices.Contains([]byte(name), 0) {
		return invalid(field, "a name must be 1 to 512 bytes of UTF-8 without a zero byte")
	}
	return nil
}

func invalid(field, why string) error {
	return fault.New(api.CodeInvalid, "reading a dataset: "+why).WithField(field)
}
