package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// textOf appends the text of a key value to dst, given the type's own bytes. ok is false for bytes that aren't one.
type textOf func(dst, raw []byte) (text []byte, ok bool)

// texts are the types that are spelled here; for every other the database is asked (column::text), which costs a column
// more on the wire. They print as PostgreSQL does, except bytea, which is bare lower-case hexadecimal as it is on SQLite.
var texts = map[string]textOf{
	"int2": func(dst, raw []byte) ([]byte, bool) {
		if len(raw) != 2 {
			return dst, false
		}
		return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(raw))), 10), true
	},
	"int4": func(dst, raw []byte) ([]byte, bool) {
		if len(raw) != 4 {
			return dst, false
		}
		return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(raw))), 10), true
	},
	"int8": func(dst, raw []byte) ([]byte, bool) {
		if len(raw) != 8 {
			return dst, false
		}
		return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(raw)), 10), true
	},
	"uuid": func(dst, raw []byte) ([]byte, bool) {
		if len(raw) != 16 {
			return dst, false
		}
		for i, part := range [][]byte{raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
			if i > 0 {
				dst = append(dst, '-')
			}
			dst = hex.AppendEncode(dst, part)
		}
		return dst, true
	},
	"text":    plain,
	"varchar": plain,
	"bpchar":  plain,
	"bytea":   func(dst, raw []byte) ([]byte, bool) { return hex.AppendEncode(dst, raw), true },
}

func plain(dst, raw []byte) ([]byte, bool) { return append(dst, raw...), true }
