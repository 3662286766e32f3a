package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// The first byte of a key column's value in pages and cursors. They are stored with jobs: never change one.
const (
	tagInteger = 1 // 8 bytes, big-endian
	tagReal    = 2 // 8 bytes, IEEE 754, big-endian
	tagText    = 3
	tagBlob    = 4
)

// appendKey appends a key column's value. ok is false for NULL.
func appendKey(dst []byte, v driver.Value) (_ []byte, ok bool) {
	switch v := v.(type) {
	case int64:
		return binary.BigEndian.AppendUint64(append(dst, tagInteger), uint64(v)), true
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, tagReal), math.Float64bits(v)), true
	case string:
		return append(append(dst, tagText), v...), true
	case []byte:
		return append(append(dst, tagBlob), v...), true
	}
	return dst, false
}

// keyValue is the value that appendKey wrote. ok is false for bytes that it never writes.
func keyValue(raw []byte) (v driver.Value, ok bool) {
	if len(raw) == 0 {
		return nil, false
	}
	tag, rest := raw[0], raw[1:]
	switch {
	case tag == tagInteger && len(rest) == 8:
		return int64(binary.BigEndian.Uint64(rest)), true
	case tag == tagReal && len(rest) == 8:
		return math.Float64frombits(binary.BigEndian.Uint64(rest)), true
	case tag == tagText:
		return string(rest), true
	case tag == tagBlob:
		return append([]byte{}, rest...), true
	}
	return nil, false
}

// keyValues takes a cursor or the key of a row apart.
func keyValues(key reencrypt.Key, n int) ([]driver.Value, bool) {
	cols, ok := key.Columns(n)
	if !ok {
		return nil, false
	}
	out := make([]driver.Value, n)
	for i, c := range cols {
		if out[i], ok = keyValue(c); !ok {
			return nil, false
		}
	}
	return out, true
}

// affinity is what a column does to the values that are put into it (https://www.sqlite.org/datatype3.html, section 3.1).
type affinity int

const (
	affinityNone affinity = iota // no type, or any type in a STRICT table: values stay as they are
	affinityBlob                 // declared BLOB: values stay as they are
	affinityText
	affinityNumber // INTEGER, REAL and NUMERIC: text that looks like a number becomes one
)

// nameless stands for a key value whose text another row's key could have too: it isn't UTF-8, so no context can be made
// from it and the row goes to the dead-letter list. It takes a key column with several types of values to get there.
const nameless = "\xff (a key value of a type that its column doesn't declare)"

// appendName appends the text of a key column's value, for contexts and for people. Within one column no two values have
// the same text:
//
//   - Where numbers belong, text that looks like one was made one by SQLite, so what is still text looks like none.
//   - Where text belongs, numbers were made text by SQLite.
//   - A column that is declared BLOB has lower-case hexadecimal, as on PostgreSQL.
//   - In a column without a type, whole numbers and text that doesn't look like one.
//
// What is left over is nameless.
func appendName(dst []byte, v driver.Value, a affinity) []byte {
	switch v := v.(type) {
	case int64:
		if a != affinityBlob {
			return strconv.AppendInt(dst, v, 10)
		}
	case float64:
		if a == affinityNumber && !math.IsInf(v, 0) {
			return strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
	case string:
		if a == affinityText || a == affinityNumber || a == affinityNone && !wholeNumber(v) {
			return append(dst, v...)
		}
	case []byte:
		if a == affinityBlob {
			return hex.AppendEncode(dst, v)
		}
	}
	return append(dst, nameless...)
}

// wholeNumber reports whether s is how an integer is printed.
func wholeNumber(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == s
}
