package sqlite

import (
	"fmt"
	"slices"
	"testing"
)

func texts(ts []token) (out []string) {
	for _, t := range ts {
		out = append(out, t.text)
	}
	return out
}

func TestTokens(t *testing.T) {
	for sql, want := range map[string][]string{
		"":                            nil,
		"a, b":                        {"a", ",", "b"},
		`"a ""b""" [c d] ` + "`e``f`": {`a "b"`, "c d", "e`f"},
		"'it''s' x":                   {"it's", "x"},
		"a -- b, \"c\n, d":            {"a", ",", "d"},
		"a /* b ' */ c /* d":          {"a", "c"},
		"ünïcode_1$ 2":                {"ünïcode_1$", "2"},
		"x'00'":                       {"x", "00"},
		`"open`:                       {"open"},
		"[open":                       {"open"},
		"'":                           {""},
		"a--":                         {"a"},
		"(a)=.5":                      {"(", "a", ")", "=", ".", "5"},
		"'a\x00b'":                    {"a\x00b"},
		"\"" + `]`:                    {"]"},
		"[a]]b":                       {"a", "]", "b"},
		"CHECK(a<>'b')":               {"CHECK", "(", "a", "<", ">", "b", ")"},
		"a\t\r\n\fb":                  {"a", "b"},
		"/**/":                        nil,
		"--":                          nil,
		"\xff\xfe":                    {"\xff\xfe"},
	} {
		if got := texts(tokens(sql)); !slices.Equal(got, want) {
			t.Errorf("the tokens of %q are %q, want %q", sql, got, want)
		}
	}
}

func TestDefinitions(t *testing.T) {
	const sql = `CREATE TABLE "t(1)" (id INTEGER PRIMARY KEY, v TEXT DEFAULT ('a,(b') CONSTRAINT c1 CHECK (f(v, 2) > 1) CHECK (w), -- note, x
		"a,b" DECIMAL(5, 2), CONSTRAINT c2 UNIQUE (v, w), CHECK (w IS NOT NULL AND "v" = 'w')) WITHOUT ROWID`
	var got []string
	for _, def := range definitions(sql) {
		line := def[0].text
		for _, c := range checks(def) {
			line += fmt.Sprintf(" %q on v:%v w:%v", c.name, mentions(c.expr, "V"), mentions(c.expr, "w"))
		}
		got = append(got, line)
	}
	want := []string{"id", `v "c1" on v:true w:false "" on v:false w:true`, "a,b", "CONSTRAINT", `CHECK "" on v:true w:true`}
	if !slices.Equal(got, want) {
		t.Errorf("the definitions are %q, want %q", got, want)
	}
	for _, broken := range []string{"", "CREATE TABLE t", "CREATE TABLE t (", "CREATE TABLE t (a, (", "CREATE TABLE t (a CHECK"} {
		for _, def := range definitions(broken) {
			checks(def) // must not panic
		}
	}
}

func TestUpdateTriggers(t *testing.T) {
	for sql, want := range map[string]string{
		"CREATE TRIGGER t AFTER UPDATE ON people BEGIN SELECT 1; END":                            "[] true",
		"CREATE TRIGGER IF NOT EXISTS main.t UPDATE OF a, \"b c\" ON people BEGIN SELECT 1; END": "[a , b c] true",
		"CREATE TRIGGER t BEFORE INSERT ON people BEGIN UPDATE people SET a = 1; END":            "[] false",
		"CREATE TRIGGER \"UPDATE\" AFTER DELETE ON people BEGIN SELECT 1; END":                   "[] false",
		"CREATE TEMP TRIGGER t INSTEAD OF UPDATE OF x ON seen BEGIN SELECT 1; END":               "[x] true",
		"": "[] false", "CREATE TRIGGER t UPDATE": "[] true", "CREATE TRIGGER t UPDATE OF": "[] true",
	} {
		columns, ok := updateTrigger(sql)
		if got := fmt.Sprint(texts(columns), ok); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}
