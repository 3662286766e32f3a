package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// addUniques collects what identifies a row for sure: the primary key, and unique indexes of every row without NULL.
func addUniques(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	if key := r.primaryKey(); len(key) > 0 {
		t.Uniques, t.HasPK = append(t.Uniques, key), true
	}
	for _, x := range r.indexes {
		if x.origin != "pk" && r.identifies(x) {
			t.Uniques = append(t.Uniques, x.names())
		}
	}
	addCollations(r, t)
	return addNulls(ctx, c, r, t)
}

// primaryKey is the columns of the primary key in its order. The bare rowid is none: VACUUM may give rows other ones.
func (r *relation) primaryKey() []string {
	var key []column
	for _, col := range r.columns {
		if col.key > 0 {
			key = append(key, col)
		}
	}
	slices.SortFunc(key, func(a, b column) int { return int(a.key - b.key) })
	names := make([]string, len(key))
	for i, col := range key {
		names[i] = col.name
	}
	return names
}

// identifies reports whether an index has every row, under a key of its own.
func (r *relation) identifies(x index) bool {
	return x.unique && !x.partial && !slices.ContainsFunc(x.columns, func(k indexColumn) bool {
		col, err := r.find(k.name)
		return err != nil || !col.notNull
	})
}

func (x index) names() []string {
	var out []string
	for _, c := range x.columns {
		out = append(out, c.name)
	}
	return out
}

// collationOf is what orders a column in the index that a key comes from. INTEGER PRIMARY KEY has none.
func (r *relation) collationOf(pk []string, name string) string {
	want := slices.Sorted(slices.Values(pk))
	for _, x := range r.indexes {
		if x.unique && !x.partial && slices.Equal(slices.Sorted(slices.Values(x.names())), want) {
			i := slices.IndexFunc(x.columns, func(c indexColumn) bool { return c.name == name })
			return x.columns[i].collation
		}
	}
	return byBytes
}

// builtIn are the collations that SQLite has by itself, and our connections with it.
var builtIn = []string{byBytes, "NOCASE", "RTRIM"}

// addCollations keeps columns out of keys whose order is known to the application alone.
func addCollations(r *relation, t *reencrypt.Table) {
	for _, x := range r.indexes {
		for _, k := range x.columns {
			i := slices.IndexFunc(t.Columns, func(c reencrypt.TableColumn) bool { return c.Name == k.name })
			if i >= 0 && !slices.Contains(builtIn, strings.ToUpper(k.collation)) {
				t.Columns[i].KeyRefusal = fmt.Sprintf("index %q orders it by collation %q, which only the application has", x.name, k.collation)
			}
		}
	}
}

// addNulls keeps key columns out that hold NULL. SQLite lets it into primary keys, any number of times, unless the column
// is declared NOT NULL; most aren't, and have none. Rows with a NULL that come later are never moved, and the count of the
// whole table finds them.
func addNulls(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	for _, name := range t.PrimaryKey() {
		i := slices.IndexFunc(r.columns, func(c column) bool { return c.name == name })
		if r.columns[i].notNull || r.rowid == name || r.without || t.Columns[i].KeyRefusal != "" {
			continue
		}
		rows, err := c.query(ctx, fmt.Sprintf("SELECT 1 FROM main.%s AS t WHERE t.%s IS NULL LIMIT 1", reencrypt.Quoted(r.name), reencrypt.Quoted(name)))
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			t.Columns[i].KeyRefusal = "it is NULL in some row, which can't be found again then; give each a value, or the column NOT NULL"
		}
	}
	return nil
}
