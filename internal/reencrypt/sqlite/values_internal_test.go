package sqlite

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// anyValue draws what can be put into a column, and often what looks like something of another type.
func anyValue() *rapid.Generator[driver.Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), func(v int64) driver.Value { return v }),
		rapid.Map(rapid.Int64Range(-20, 20), func(v int64) driver.Value { return v }),
		rapid.Map(rapid.Float64(), func(v float64) driver.Value { return v }),
		rapid.Map(rapid.Float64Range(-3, 3), func(v float64) driver.Value { return math.Round(v*2) / 2 }),
		rapid.Map(rapid.String(), func(v string) driver.Value { return v }),
		rapid.Map(rapid.StringMatching(`[+-]?[0-9]{1,3}(\.[05])?(e[+-]?[0-9]{1,2})?|[0-9a-f]{2,4}|[+-]?Inf|nan|0x1f| 7 `), func(v string) driver.Value { return v }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 3), func(v []byte) driver.Value { return v }),
	)
}

// TestNamesTellKeysApart: within one column, whatever it is declared as, no two values that it can hold are spelled alike
// (unless they have no name at all): a ciphertext of one row never opens in another (promise P7 rests on it). And a key is
// found again by its bytes.
func TestNamesTellKeysApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	app := sqlitetest.Open(t, path)
	declared := []column{{declared: "INTEGER"}, {declared: "INT"}, {declared: "REAL"}, {declared: "NUMERIC"}, {declared: "TEXT"}, {declared: "BLOB"}, {declared: ""}, {declared: "DATETIME"}}
	for i, c := range declared {
		if _, err := app.Exec(fmt.Sprintf("CREATE TABLE t%d (k %s)", i, c.declared)); err != nil {
			t.Fatal(err)
		}
	}
	d := &database{path: path, session: reencrypt.Session{}.WithDefaults()}
	c, err := d.connect(t.Context(), writing)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(declared)-1).Draw(t, "column")
		values := rapid.SliceOfN(anyValue(), 2, 8).Draw(t, "values")
		rows, err := c.query(t.Context(), fmt.Sprintf("INSERT INTO t%d VALUES (?)%s RETURNING +k, typeof(k)", i, strings.Repeat(", (?)", len(values)-1)), values...)
		if err != nil {
			t.Fatal(err)
		}
		affinity, spelled := declared[i].affinity(false), map[string]row{}
		for _, r := range rows {
			if r[0] == nil {
				continue // what is no number became NULL
			}
			key, ok := appendKey(nil, r[0])
			if again, found := keyValue(key); !ok || !found || !equal(again, r[0]) {
				t.Fatalf("the key of %v is read again as %v", r[0], again)
			}
			name := string(appendName(nil, r[0], affinity))
			if other, ok := spelled[name]; ok && name != nameless && (other.text(1) != r.text(1) || !equal(other[0], r[0])) {
				t.Fatalf("in a column declared %q, %v (%s) and %v (%s) are both %q", declared[i].declared, other[0], other.text(1), r[0], r.text(1), name)
			}
			spelled[name] = r
		}
	})
}

func equal(a, b driver.Value) bool {
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && bytes.Equal(x, y)
	}
	return reflect.DeepEqual(a, b)
}

func TestKeyBytes(t *testing.T) {
	for _, bad := range [][]byte{nil, {}, {0}, {9, 1}, {tagInteger}, {tagInteger, 1, 2}, {tagReal, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		if v, ok := keyValue(bad); ok {
			t.Errorf("%x is taken for the key %v", bad, v)
		}
	}
	if _, ok := appendKey(nil, nil); ok {
		t.Error("NULL is taken for a key")
	}
}
