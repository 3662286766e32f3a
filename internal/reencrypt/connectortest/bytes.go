package connectortest

import (
	"strconv"
	"testing"
)

// AsBytes is a row as a client library decodes it, back in the bytes that Database.Rows answers.
func AsBytes(tb testing.TB, row []any) [][]byte {
	tb.Helper()
	out := make([][]byte, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case nil:
		case []byte:
			out[i] = v
			if v == nil {
				out[i] = []byte{}
			}
		case string:
			out[i] = []byte(v)
		case int64:
			out[i] = strconv.AppendInt(nil, v, 10)
		case int32:
			out[i] = strconv.AppendInt(nil, int64(v), 10)
		default:
			tb.Fatalf("a value of type %T isn't expected here", v)
		}
	}
	return out
}
