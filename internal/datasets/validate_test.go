package datasets_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestValidate(t *testing.T) {
	phi, pii := envelope.KeyID{1}, envelope.KeyID{2}
	for _, c := range []struct {
		name  string
		edit  func(*datasets.Dataset)
		field string // empty: accepted
	}{
		{"default", func(*datasets.Dataset) {}, ""},
		{"tenant", func(d *datasets.Dataset) { d.Context = datasets.DefaultTemplate("acme", d.PK) }, ""},
		{"no key", func(d *datasets.Dataset) { d.PK = nil }, "pk"},
		{"too many key columns", func(d *datasets.Dataset) { d.PK = strings.Split(strings.Repeat("x,", 17), ",") }, "pk"},
		{"key column twice", func(d *datasets.Dataset) { d.PK = []string{"id", "id"} }, "pk"},
		{"empty key column", func(d *datasets.Dataset) { d.PK = []string{""} }, "pk"},
		{"no column", func(d *datasets.Dataset) { d.Columns = nil }, "columns"},
		{"too many columns", func(d *datasets.Dataset) { d.Columns = make([]datasets.Column, 65) }, "columns"},
		{"column twice", func(d *datasets.Dataset) { d.Columns = append(d.Columns, d.Columns[0]) }, "columns"},
		{"column of the key", func(d *datasets.Dataset) { d.Columns[0].Name = "id" }, "columns"},
		{"zero byte", func(d *datasets.Dataset) { d.Columns[0].Name = "a\x00" }, "columns"},
		{"not UTF-8", func(d *datasets.Dataset) { d.Table = "\xff" }, "table"},
		{"no table", func(d *datasets.Dataset) { d.Table = "" }, "table"},
		{"long name", func(d *datasets.Dataset) { d.Table = strings.Repeat("x", 513) }, "table"},
		{"odd names", func(d *datasets.Dataset) { d.Table, d.Columns[0].Name = `x"; drop table y`, "{pk}" }, ""},

		{"no context", func(d *datasets.Dataset) { d.Context = nil }, "context"},
		{"no context, unbound", func(d *datasets.Dataset) { d.Context, d.Unbound = nil, true }, ""},
		{"key left out", func(d *datasets.Dataset) { d.Context = map[string]string{"t": "{table}", "c": "{column}"} }, "context"},
		{"part of the key left out", func(d *datasets.Dataset) {
			d.PK = []string{"a", "b"}
			d.Context = map[string]string{"a": "{pk.a}"}
		}, "context"},
		{"short form", func(d *datasets.Dataset) { d.Context = map[string]string{"patient": "{pk}"} }, ""},
		{"text around", func(d *datasets.Dataset) { d.Context = map[string]string{"patient": "patients/{pk}#"} }, ""},
		{"short form of a composite key", func(d *datasets.Dataset) {
			d.PK = []string{"a", "b"}
			d.Context = map[string]string{"a": "{pk}"}
		}, "context"},
		{"two placeholders", func(d *datasets.Dataset) { d.Context["x"] = "{column}{pk}" }, "context"},
		{"unknown placeholder", func(d *datasets.Dataset) { d.Context["x"] = "{row}" }, "context"},
		{"unknown key column", func(d *datasets.Dataset) { d.Context["x"] = "{pk.nope}" }, "context"},
		{"open brace", func(d *datasets.Dataset) { d.Context["x"] = "a{" }, "context"},
		{"closing brace", func(d *datasets.Dataset) { d.Context["x"] = "a}" }, "context"},
		{"braces in a key column's name", func(d *datasets.Dataset) {
			d.PK = []string{"a}b"}
			d.Context = map[string]string{"a": "{pk.a}b}"}
		}, ""},
		{"context not UTF-8", func(d *datasets.Dataset) { d.Context["x"] = "\xff" }, "context"},
		{"context too long", func(d *datasets.Dataset) { d.Context["x"] = strings.Repeat("x", 4097) }, "context"},

		{"columns under one key, told apart", func(d *datasets.Dataset) {
			d.Columns = []datasets.Column{{Name: "a", KeyID: phi}, {Name: "b", KeyID: phi}}
		}, ""},
		{"columns under one key, not told apart", func(d *datasets.Dataset) {
			d.Columns = []datasets.Column{{Name: "a", KeyID: phi}, {Name: "b", KeyID: phi}}
			d.Context = map[string]string{"patient": "{pk}"}
		}, "context"},
		{"columns under two keys, not told apart", func(d *datasets.Dataset) {
			d.Columns = []datasets.Column{{Name: "a", KeyID: phi}, {Name: "b", KeyID: pii}}
			d.Context = map[string]string{"patient": "{pk}"}
		}, ""},
	} {
		d := patients()
		c.edit(d)
		err := datasets.Validate(d)
		if want := map[bool]api.Code{true: "", false: api.CodeInvalid}[c.field == ""]; fault.CodeOf(err) != want || fault.FieldOf(err) != c.field {
			t.Errorf("%s: field %q, %v", c.name, fault.FieldOf(err), err)
		}
		if _, cerr := datasets.Compile(d, "ssn"); (cerr == nil) != (err == nil) {
			t.Errorf("%s: Compile says %v, Validate %v", c.name, cerr, err)
		}
	}
}

func TestDatasetKnowsItsColumns(t *testing.T) {
	d := patients()
	if c, ok := d.Column("ssn"); !ok || c.Key != "phi" {
		t.Errorf("ssn is %+v, %v", c, ok)
	}
	if _, ok := d.Column("SSN"); ok {
		t.Error("names are compared without regard to case")
	}
}
