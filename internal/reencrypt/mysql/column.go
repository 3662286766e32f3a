package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// column is a row of sqlColumns.
type column struct {
	name, data, printed      string // data: the type's bare name; printed: as the table declares it
	notNull                  bool
	characters, octets       int64 // of text and binary types
	charset, collation       string
	extra, generation        string
	read, write              bool
	precision, scale, digits int64 // of numbers, and of fractions of a second
}

func columnsOf(ctx context.Context, c *conn, schema, table string) ([]column, error) {
	rows, err := c.query(ctx, sqlColumns, schema, table)
	if err != nil {
		return nil, err
	}
	out := make([]column, len(rows))
	for i, r := range rows {
		privileges := strings.Split(strings.ToLower(r.text(10)), ",")
		out[i] = column{
			name: r.text(0), data: strings.ToLower(r.text(1)), printed: r.text(2), notNull: r.text(3) == "NO", characters: r.number(4), octets: r.number(5),
			charset: r.text(6), collation: r.text(7), extra: strings.ToLower(r.text(8)), generation: r.text(9),
			read: slices.Contains(privileges, "select"), write: slices.Contains(privileges, "update"),
			precision: r.number(11), scale: r.number(12), digits: r.number(13),
		}
	}
	return out, nil
}

// charsets are the character sets whose every value becomes UTF-8 and comes back the same: for each, how many bytes of
// UTF-8 one stored byte may become at most, how many bytes its shortest character takes, and whether its bytes are UTF-8
// as they stand. In others (ucs2, the code pages, the East Asian ones) two values may become the same text, or one a
// question mark.
var charsets = map[string]struct {
	grows, shortest int64
	utf8            bool
}{
	"utf8mb4": {1, 1, true}, "utf8mb3": {1, 1, true}, "utf8": {1, 1, true}, "ascii": {1, 1, true}, "latin1": {3, 1, false},
	"utf16": {2, 2, false}, "utf16le": {2, 2, false}, "utf32": {1, 4, false},
}

// form says what can stand in the column. CHAR and BINARY can't hold ciphertexts: they cut off or add at the end.
func (c column) form() reencrypt.Form {
	switch c.data {
	case "varchar", "tinytext", "text", "mediumtext", "longtext":
		if _, ok := charsets[c.charset]; ok && word.MatchString(c.collation) {
			return reencrypt.Text
		}
		if c.charset == "" { // MariaDB prints VARCHAR CHARACTER SET binary so, if ever
			return reencrypt.Unsupported
		}
		return reencrypt.Text // refused by name of its character set
	case "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
		return reencrypt.Binary
	}
	return reencrypt.Unsupported
}

// width is how many characters of a ciphertext, ASCII all of them, have room; 0 where any value that is worked on has.
func (c column) width() int {
	n := c.characters
	if c.form() == reencrypt.Text {
		n = min(n, c.octets/max(1, charsets[c.charset].shortest))
	}
	if n > 4*reencrypt.MaxValue {
		return 0
	}
	return int(n)
}

func (c column) describe() reencrypt.TableColumn {
	out := reencrypt.TableColumn{Name: c.name, Type: c.printed, Form: c.form()}
	if out.Form != reencrypt.Unsupported {
		out.Width = c.width()
	}
	_, known := charsets[c.charset]
	switch {
	case strings.Contains(c.extra, "generated"):
		out.Refusal = "it is generated from other columns; register those"
	case !c.read || !c.write:
		out.Refusal = "the user of the database URL needs SELECT and UPDATE on it"
	case out.Form == reencrypt.Text && !known:
		out.Refusal = fmt.Sprintf("not every value of character set %s goes to UTF-8 and back unchanged; convert the column to utf8mb4", c.charset)
	}
	switch {
	case !c.read:
		out.KeyRefusal = "the user of the database URL needs SELECT on it"
	case strings.Contains(c.extra, "on update"):
		out.KeyRefusal = "the database sets it anew with every update (ON UPDATE)"
	default:
		out.KeyRefusal = c.keyRefusal()
	}
	return out
}

// keyRefusal is why the column's values can't find their rows again.
func (c column) keyRefusal() string {
	if _, ok := kinds[c.data]; !ok {
		return "its type " + c.printed + " can't be part of a key here: values of it don't compare as they are sorted, or not exactly"
	}
	if kinds[c.data] == kindText {
		if _, known := charsets[c.charset]; !known || !word.MatchString(c.collation) {
			return fmt.Sprintf("not every value of character set %s goes to UTF-8 and back unchanged", c.charset)
		}
	}
	return ""
}
