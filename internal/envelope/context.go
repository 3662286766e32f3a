package envelope

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxContext is the most bytes that a canonical context may take.
const MaxContext = 8 << 10

// Context is a map of strings in its canonical form: the pairs sorted by the bytes of their keys, as
//
//	u16 count, then for each pair u16 length | key, u16 length | value        (big-endian)
//
// It is bound into a ciphertext and must be presented again, equal, to open it. It isn't secret: it is written to the
// audit log in clear. A nil Context is the empty map. Make one with NewContext or AppendContext only; Seal and Open
// take its bytes as they are.
type Context []byte

// emptyContext is the canonical form of the empty map, which nil stands for.
var emptyContext = Context{0, 0}

// Pair is one entry of a context.
type Pair struct {
	Key, Value string
}

// NewContext brings a map into canonical form. Keys and values may be empty but must be valid UTF-8.
func NewContext(m map[string]string) (Context, error) {
	pairs := make([]Pair, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, Pair{k, v})
	}
	return AppendContext(nil, pairs)
}

// AppendContext appends the canonical form of pairs, sorting them in place; with a dst that has room and pairs that the
// caller keeps, it allocates nothing. The context is what was appended: with a dst that isn't empty, cut it off before
// it is used. Errors are of code invalid, with the field "context".
func AppendContext(dst []byte, pairs []Pair) (Context, error) {
	if len(pairs) > 1 && !slices.IsSortedFunc(pairs, byKey) {
		slices.SortFunc(pairs, byKey)
	}
	size := 2
	for i, p := range pairs {
		if i > 0 && pairs[i-1].Key == p.Key {
			return nil, badContext("a key appears twice")
		}
		if !utf8.ValidString(p.Key) || !utf8.ValidString(p.Value) {
			return nil, badContext("keys and values must be valid UTF-8")
		}
		if size += 4 + len(p.Key) + len(p.Value); size > MaxContext {
			return nil, badContext("it is longer than 8 KiB")
		}
	}
	dst = slices.Grow(dst, size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(pairs)))
	for _, p := range pairs {
		dst = appendString(appendString(dst, p.Key), p.Value)
	}
	return dst, nil
}

// ParseContext reads canonical bytes back. It accepts exactly what AppendContext writes: order, lengths, UTF-8 and the
// limit are all checked, and nothing may follow. No bytes at all are the empty map, as they are for Seal and Open.
func ParseContext(c Context) ([]Pair, error) {
	if len(c) == 0 {
		return nil, nil
	}
	if len(c) < 2 || len(c) > MaxContext {
		return nil, badContext("it is not in canonical form")
	}
	count, rest := int(binary.BigEndian.Uint16(c)), []byte(c[2:])
	pairs := make([]Pair, 0, min(count, len(rest)/4))
	for range count {
		var key, value string
		var ok1, ok2 bool
		key, rest, ok1 = cutString(rest)
		value, rest, ok2 = cutString(rest)
		if !ok1 || !ok2 || len(pairs) > 0 && pairs[len(pairs)-1].Key >= key {
			return nil, badContext("it is not in canonical form")
		}
		pairs = append(pairs, Pair{key, value})
	}
	if len(rest) > 0 {
		return nil, badContext("it is not in canonical form")
	}
	return pairs, nil
}

// Map is the context as a map, for the audit log and for people.
func (c Context) Map() (map[string]string, error) {
	pairs, err := ParseContext(c)
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		m[p.Key] = p.Value
	}
	return m, nil
}

// bytes is the canonical form with nil spelled out.
func (c Context) bytes() []byte {
	if len(c) == 0 {
		return emptyContext
	}
	return c
}

func byKey(a, b Pair) int { return strings.Compare(a.Key, b.Key) }

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n || !utf8.Valid(b[:n]) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func badContext(why string) error {
	return fault.New(api.CodeInvalid, "reading the context: "+why).WithField("context")
}
