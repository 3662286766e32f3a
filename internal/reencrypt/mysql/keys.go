package mysql

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// kind is how values of a key column travel. In pages and cursors, which are stored with jobs, they stand as text; a
// binary one as its bytes.
type kind int

const (
	kindInteger kind = iota + 1
	kindText
	kindBinary
	kindCast // by CAST to the type, and back by CAST to text
)

// kinds are the types that may be part of a key, by their bare names. ENUM and SET are sorted by number and compared as
// text, FLOAT and DOUBLE aren't printed exactly.
var kinds = map[string]kind{
	"tinyint": kindInteger, "smallint": kindInteger, "mediumint": kindInteger, "int": kindInteger, "bigint": kindInteger, "year": kindInteger,
	"char": kindText, "varchar": kindText, "binary": kindBinary, "varbinary": kindBinary,
	"decimal": kindCast, "date": kindCast, "datetime": kindCast, "timestamp": kindCast, "time": kindCast,
	"uuid": kindCast, "inet4": kindCast, "inet6": kindCast,
}

// keyColumn is one column of the key.
type keyColumn struct {
	quoted string // with the table's alias
	kind   kind
	column
}

func keyOf(c column) keyColumn {
	return keyColumn{quoted: "t." + quote(c.name), kind: kinds[c.data], column: c}
}

// selected is the column as it is asked for.
func (k keyColumn) selected() string {
	if k.kind == kindCast {
		return "CAST(" + k.quoted + " AS CHAR)"
	}
	return k.quoted
}

// parameter is one value of the column in a statement, as the column's own type, character set and collation: what it is
// compared with decides whether its index is of use.
func (k keyColumn) parameter() string {
	switch k.kind {
	case kindText:
		return fmt.Sprintf("CONVERT(? USING %s) COLLATE %s", k.charset, k.collation)
	case kindBinary:
		return "CAST(? AS BINARY)"
	case kindCast:
		return "CAST(? AS " + k.castType() + ")"
	}
	return "?"
}

func (k keyColumn) castType() string {
	switch k.data {
	case "decimal":
		return fmt.Sprintf("DECIMAL(%d,%d)", k.precision, k.scale)
	case "datetime", "timestamp":
		return fmt.Sprintf("DATETIME(%d)", k.digits)
	case "time":
		return fmt.Sprintf("TIME(%d)", k.digits)
	}
	return k.data
}

// bytesOf is an SQL expression, compared as the bytes that it has in UTF-8.
func bytesOf(expression, charset string) string {
	if !charsets[charset].utf8 {
		expression = "CONVERT(" + expression + " USING utf8mb4)"
	}
	return "CAST(" + expression + " AS BINARY)"
}

// equal finds the one row of a value by the index. Its parameter: the value. A collation may take another value for
// equal, so where rows are written, text is compared as bytes too.
func (k keyColumn) equal() string { return k.quoted + " = " + k.parameter() }

// value is the parameter of a value as pages hold it. ok is false for bytes that no page holds.
func (k keyColumn) value(raw []byte) (v driver.Value, ok bool) {
	switch k.kind {
	case kindInteger:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return n, strconv.FormatInt(n, 10) == string(raw)
		}
		n, err := strconv.ParseUint(string(raw), 10, 64)
		return n, err == nil && strconv.FormatUint(n, 10) == string(raw)
	case kindBinary:
		return raw, true
	}
	return raw, utf8.Valid(raw)
}

// add puts one value of an answer into a page: as it finds the row again, and as people and contexts have it.
func (k keyColumn) add(p *reencrypt.Page, i int, v driver.Value, scratch []byte) ([]byte, bool) {
	var raw []byte
	switch v := v.(type) {
	case int64:
		scratch = strconv.AppendInt(scratch[:0], v, 10)
		raw = scratch
	case string: // a number above the largest int64
		scratch = append(scratch[:0], v...)
		raw = scratch
	case []byte:
		raw = v
	default:
		return scratch, false
	}
	p.Keys[i].Append(raw)
	if k.kind == kindBinary {
		scratch = hex.AppendEncode(scratch[:0], raw)
		raw = scratch
	}
	p.Names[i].Append(raw)
	return scratch, true
}
