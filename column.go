package keyturn

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"maps"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Sealer seals values and opens them again. [Envelope] is one, and so is what [Client.Sealer] returns.
type Sealer interface {
	Seal(ctx context.Context, plaintext []byte, bound map[string]string) (string, error)
	Open(ctx context.Context, sealed string, bound map[string]string) ([]byte, error)
}

// Sealer seals and opens at the server, one call a value, in the form that datasets hold too ("kt1."): the choice for a
// column that keyturn re-encrypts. An Envelope is the choice where a call a value is too much.
func (c *Client) Sealer(key string) Sealer { return remote{c, key} }

type remote struct {
	client *Client
	key    string
}

func (r remote) Seal(ctx context.Context, plaintext []byte, bound map[string]string) (string, error) {
	out, err := r.client.Encrypt(ctx, r.key, api.EncryptRequest{Plaintext: plaintext, Context: bound})
	return out.Ciphertext, err
}

func (r remote) Open(ctx context.Context, sealed string, bound map[string]string) ([]byte, error) {
	out, err := r.client.Decrypt(ctx, r.key, api.DecryptRequest{Ciphertext: sealed, Context: bound})
	return out.Plaintext, err
}

// Text is what a column may hold in clear.
type Text interface{ ~string | ~[]byte }

// Column says how one column of a table is sealed: by what, and bound to what. It is made once and used for every row:
//
//	ssn := keyturn.NewColumn[string](envelope, map[string]string{"table": "patients", "column": "ssn"})
//	…
//	db.ExecContext(ctx, `INSERT INTO patients (id, ssn) VALUES ($1, $2)`, 17, ssn.Row(ctx, "id", "17").Of("900-05-1120"))
//	got := ssn.Row(ctx, "id", "17").Empty()
//	db.QueryRowContext(ctx, `SELECT ssn FROM patients WHERE id = $1`, 17).Scan(got)
//
// The row is part of what a value is bound to, so that a ciphertext copied into another row doesn't open. A column that
// keyturn's datasets look after has the context that `keyturn dataset show` prints.
type Column[T Text] struct {
	sealer Sealer
	bound  map[string]string
}

// NewColumn makes a Column whose values are bound to bound and, by Row, to their row.
func NewColumn[T Text](s Sealer, bound map[string]string) *Column[T] {
	return &Column[T]{sealer: s, bound: maps.Clone(bound)}
}

// Row binds the values made of it to one row, by pairs of context names and values, for as long as ctx lives:
// database/sql hands no context to Scan and Value. An odd number of strings makes every use fail.
func (c *Column[T]) Row(ctx context.Context, pairs ...string) Row[T] {
	bound := make(map[string]string, len(c.bound)+len(pairs)/2)
	maps.Copy(bound, c.bound)
	r := Row[T]{ctx: ctx, sealer: c.sealer, bound: bound}
	if len(pairs)%2 != 0 {
		r.err = errPairs
		return r
	}
	for i := 0; i < len(pairs); i += 2 {
		if _, taken := bound[pairs[i]]; taken {
			r.err = errPairs
		}
		bound[pairs[i]] = pairs[i+1]
	}
	return r
}

// errPairs is what a Row made of wrong pairs answers.
var errPairs = fault.New(api.CodeInvalid, "binding a column to its row: it needs pairs of names and values, each name once").WithField("context")

// Row is a column in one row.
type Row[T Text] struct {
	ctx    context.Context //nolint:containedctx // Scan and Value have no other way to one
	sealer Sealer
	bound  map[string]string
	err    error
}

// Of is a value to write.
func (r Row[T]) Of(plain T) *Encrypted[T] { return &Encrypted[T]{Plain: plain, Valid: true, row: r} }

// Null is an SQL NULL to write; it isn't sealed.
func (r Row[T]) Null() *Encrypted[T] { return &Encrypted[T]{row: r} }

// Empty is a value to scan into.
func (r Row[T]) Empty() *Encrypted[T] { return &Encrypted[T]{row: r} }

// Encrypted is one value, in clear in the program and sealed in the database. It implements driver.Valuer and
// sql.Scanner for columns of text and of bytes, and prints as [redacted].
type Encrypted[T Text] struct {
	Plain T
	Valid bool // false for NULL
	row   Row[T]
}

// Value is the sealed text, or nil for NULL.
func (e *Encrypted[T]) Value() (driver.Value, error) {
	if e == nil || !e.Valid {
		return nil, nil
	}
	if err := e.row.usable(); err != nil {
		return nil, err
	}
	return e.row.sealer.Seal(e.row.ctx, []byte(e.Plain), e.row.bound)
}

// Scan opens what the database holds. On failure the value is empty and not Valid.
func (e *Encrypted[T]) Scan(src any) error {
	var zero T
	e.Plain, e.Valid = zero, false
	if err := e.row.usable(); err != nil {
		return err
	}
	var sealed string
	switch v := src.(type) {
	case nil:
		return nil
	case string:
		sealed = v
	case []byte:
		sealed = string(v)
	default:
		return fault.New(api.CodeInvalid, "reading an encrypted column: the database gave neither text nor bytes").WithField("column")
	}
	plain, err := e.row.sealer.Open(e.row.ctx, sealed, e.row.bound)
	if err != nil {
		return err
	}
	e.Plain, e.Valid = T(plain), true
	return nil
}

// String hides the value; Plain has it.
func (Encrypted[T]) String() string { return "[redacted]" }

// Format hides the value under every verb, so that a log line never holds it.
func (e Encrypted[T]) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, e.String()) }

// MarshalText hides the value from JSON, YAML and log/slog.
func (e Encrypted[T]) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

func (r Row[T]) usable() error {
	if r.err == nil && r.sealer == nil {
		return fault.New(api.CodeInvalid, "using an encrypted column that is bound to no row").WithNext("make it with Column.Row")
	}
	return r.err
}
