package store

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxValue is the largest single value in bytes that the store accepts. Both databases could take more; PostgreSQL's
// protocol counts a message in 32 bits, and a limit far below that can't be got around by adding columns.
const MaxValue = 16 << 20

// bind brings the arguments of a statement into the forms that both databases store alike: times as microseconds since
// 1970 in UTC, 0 for the zero time; unsigned numbers as signed ones. What one of the two would refuse, cut or bend is
// refused for both: text with a zero byte or that isn't UTF-8, values over MaxValue, numbers beyond 63 bits.
func bind(args []any) error {
	for i, arg := range args {
		switch v := arg.(type) {
		case time.Time:
			args[i] = micros(v)
		case uint64:
			if v > math.MaxInt64 {
				return fault.New(api.CodeInvalid, "storing a number beyond 63 bits")
			}
			args[i] = int64(v)
		case string:
			if err := checkText(v); err != nil {
				return err
			}
		case []byte:
			if len(v) > MaxValue {
				return errTooLarge
			}
		case int, int32, int64, uint32, bool, nil:
		default:
			return fault.Newf(api.CodeInternal, "storing an argument of the type %T, which isn't one of the store's", arg)
		}
	}
	return nil
}

var errTooLarge = fault.Newf(api.CodeTooLarge, "storing a value of more than %d MiB", MaxValue>>20)

func checkText(s string) error {
	switch {
	case len(s) > MaxValue:
		return errTooLarge
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
		return fault.New(api.CodeInvalid, "storing text that isn't UTF-8 or holds a zero byte")
	}
	return nil
}

// micros is a time as it is stored.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// instant is a time as it is read: UTC, and the zero time for 0.
func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// into scans a stored time.
type into struct{ t *time.Time }

// Scan implements sql.Scanner.
func (d into) Scan(src any) error {
	us, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a time is stored as %T", src)
	}
	*d.t = instant(us)
	return nil
}

// number scans a whole number that is never negative. For a plain integer database/sql makes text of the number and reads that, which
// shows where a hundred thousand rows are walked.
type number[T ~int64 | ~uint64 | ~uint32] struct{ n *T }

// Scan implements sql.Scanner.
func (d number[T]) Scan(src any) error {
	n, ok := src.(int64)
	if !ok || n < 0 || int64(T(n)) != n {
		return fault.Newf(api.CodeIntegrity, "reading a stored number: it is a %T out of its range", src)
	}
	*d.n = T(n)
	return nil
}

// fixed scans a blob that has exactly the length of dst.
type fixed struct{ dst []byte }

// Scan implements sql.Scanner.
func (d fixed) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(d.dst) {
		return fault.Newf(api.CodeIntegrity, "reading a stored value of %d bytes: another length", len(d.dst))
	}
	copy(d.dst, b)
	return nil
}
