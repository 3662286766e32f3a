package connectortest

import (
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// shapes: tables that can't be worked on are refused before anything is written.
func shapes(b *bench) {
	b.exec(people, "CREATE TABLE nokey (a $T, b $T)", "CREATE VIEW seen AS SELECT id, ssn FROM people",
		"CREATE TABLE child (id bigint PRIMARY KEY, person bigint REFERENCES people (id), n bigint)",
		"CREATE TABLE uniq (a bigint NOT NULL, b $K NOT NULL, v $T, UNIQUE (b, a))",
		"CREATE TABLE gen (id bigint PRIMARY KEY, a $T, b $T GENERATED ALWAYS AS (upper(a)) STORED)")
	for _, c := range []struct {
		name, table string
		pk, columns []string
		code        api.Code
		field       string
	}{
		{"good", "people", []string{"id"}, []string{"ssn", "scan"}, "", ""},
		{"no primary key", "nokey", nil, []string{"a"}, api.CodeInvalid, "pk"},
		{"not a key", "people", []string{"ssn"}, []string{"scan"}, api.CodeInvalid, "pk"},
		{"no such key column", "people", []string{"nope"}, []string{"ssn"}, api.CodeNotFound, "pk"},
		{"no such column", "people", []string{"id"}, []string{"SSN"}, api.CodeNotFound, "columns"},
		{"view", "seen", []string{"id"}, []string{"ssn"}, api.CodeInvalid, "table"},
		{"number", "child", []string{"id"}, []string{"n"}, api.CodeInvalid, "columns"},
		{"foreign key", "child", []string{"id"}, []string{"person"}, api.CodeInvalid, "columns"},
		{"unique index as key", "uniq", []string{"b", "a"}, []string{"v"}, "", ""},
		{"part of a unique index as key", "uniq", []string{"b"}, []string{"v"}, api.CodeInvalid, "pk"},
		{"generated", "gen", []string{"id"}, []string{"b"}, api.CodeInvalid, "columns"},
	} {
		t, err := b.db.Describe(b.Context(), c.table)
		if err != nil {
			b.Errorf("%s: describing: %v", c.name, err)
			continue
		}
		err = t.Check(c.pk, c.columns)
		if fault.CodeOf(err) != c.code || fault.FieldOf(err) != c.field {
			b.Errorf("%s: code %q, field %q: %v", c.name, fault.CodeOf(err), fault.FieldOf(err), err)
		}
	}
}

func missing(b *bench) {
	b.exec(people)
	for _, table := range []string{"nope", "", "People", "nope.people", "people.", "people\x00", `"people`, "sqlite_schema", "pg_catalog"} {
		if _, err := b.db.Describe(b.Context(), table); fault.CodeOf(err) != api.CodeNotFound || fault.FieldOf(err) != "table" {
			b.Errorf("describing %q: %v", table, err)
		}
	}
	t, err := b.db.Describe(b.Context(), "people")
	if err != nil {
		b.Fatal(err)
	}
	b.exec("ALTER TABLE people DROP COLUMN scan")
	if _, err := b.db.Target(b.Context(), t, []string{"id"}, []string{"scan"}); fault.CodeOf(err) != api.CodeNotFound {
		b.Errorf("preparing work on a column that is gone: %v", err)
	}
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	b.exec("DROP TABLE people")
	var r Run
	if err := r.Finish(b.Context(), w); err == nil {
		b.Error("a run over a table that is gone succeeds")
	}
}

// longest is what decides whether a column is wide enough: ciphertexts don't count.
func longest(b *bench) {
	b.fill(9)
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard), "scan": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	check := func(want int64) {
		b.Helper()
		for i := range w.Columns {
			if w.Columns[i].Name != "ssn" {
				continue
			}
			if n, err := w.Target.Longest(b.Context(), i); err != nil || n != want {
				b.Errorf("the longest is %d, %v, want %d", n, err, want)
			}
		}
	}
	check(int64(len(ssnOf(1))))
	b.exec("UPDATE people SET ssn = 'ünïcode' WHERE id = 1", "UPDATE people SET ssn = 'x' WHERE id > 1")
	check(9) // bytes, not characters
	MustFinish(b, w)
	check(0)
	b.exec("DELETE FROM people")
	check(0)
}

// noSecretsInErrors: whatever goes wrong, neither the URL's password nor a value is quoted (promise P3).
func noSecretsInErrors(b *bench) {
	const canary = "c4n4ry-pa55"
	for _, url := range []string{
		canary, "postgres://u:" + canary + "@127.0.0.1:1/db", "postgres://u:" + canary + "@[::1/db", "postgres://u:" + canary + "@h:port/db",
		"postgres://u:%zz" + canary + "@h/db", "postgres://u@h/db?password=" + canary, "postgres://u@h/db?sslmode=" + canary,
		"sqlite://" + canary + "@/x", "sqlite:///x?" + canary, "sqlite:" + canary, "postgres://:" + canary + "@h/db", "postgres://u:" + canary + "@/db",
	} {
		dsn := reencrypt.NewDSN(url)
		printable, err := b.h.Driver.Parse(dsn)
		if strings.Contains(printable+fmt.Sprint(err), canary) {
			b.Errorf("parsing quotes the password: %q, %v", printable, err)
		}
		if db, err := b.h.Driver.Open(b.Context(), dsn, reencrypt.Session{}); err == nil {
			b.Errorf("a database opened that isn't there")
			db.Close()
		} else if strings.Contains(err.Error()+fault.NextOf(err), canary) {
			b.Errorf("opening quotes the password: %v", err)
		}
	}
}
