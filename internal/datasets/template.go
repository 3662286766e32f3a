package datasets

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// The placeholders of a context template.
const (
	holdTable  = "{table}"
	holdColumn = "{column}"
	holdPK     = "{pk}" // the only key column; a composite key says {pk.NAME}
	holdPKOf   = "{pk." // {pk.NAME}
)

// DefaultTemplate binds a value to table, column, every key column and, when it isn't empty, the tenant.
func DefaultTemplate(tenant string, pk []string) map[string]string {
	t := map[string]string{"table": holdTable, "column": holdColumn}
	if tenant != "" {
		t["tenant"] = tenant
	}
	for _, name := range pk {
		t["pk."+name] = holdPKOf + name + "}"
	}
	return t
}

// Template is the context of one column, compiled: everything that is the same for each row is laid out already.
// It is immutable and safe for concurrent use.
type Template struct {
	parts []part
	pk    int
}

// part is constant bytes of the canonical context, then, unless key is -1, one value: u16 length, before, the text of key
// column number key, after.
type part struct {
	fixed         []byte
	key           int
	before, after string
}

// Compile prepares the context of d's column. Errors are those of Validate.
func Compile(d *Dataset, column string) (*Template, error) {
	if err := Validate(d); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(d.Context))
	for name := range d.Context {
		names = append(names, name)
	}
	slices.Sort(names)

	t := &Template{pk: len(d.PK)}
	fixed := binary.BigEndian.AppendUint16(nil, uint16(len(names)))
	for _, name := range names {
		fixed = appendString(fixed, name)
		v, err := d.parse(name, d.Context[name])
		if err != nil {
			return nil, err
		}
		if v.key < 0 {
			fixed = appendString(fixed, v.before+v.constant(d, column)+v.after)
			continue
		}
		t.parts = append(t.parts, part{fixed: fixed, key: v.key, before: v.before, after: v.after})
		fixed = nil
	}
	t.parts = append(t.parts, part{fixed: fixed, key: -1})
	return t, nil
}

// AppendContext appends the canonical context of the row whose key columns have these texts (in the order of
// Dataset.PK): byte for byte what envelope.AppendContext would write for the same map. With room in dst it allocates
// nothing. Errors: invalid when a key is not valid UTF-8 or makes the context longer than envelope.MaxContext.
func (t *Template) AppendContext(dst []byte, pk [][]byte) (envelope.Context, error) {
	if len(pk) != t.pk {
		return nil, fault.Newf(api.CodeInternal, "building a context: %d key columns where %d are expected", len(pk), t.pk)
	}
	start := len(dst)
	for _, p := range t.parts {
		dst = append(dst, p.fixed...)
		if p.key < 0 {
			continue
		}
		v := pk[p.key]
		n := len(p.before) + len(v) + len(p.after)
		if n > envelope.MaxContext || !utf8.Valid(v) {
			return nil, errKeyText
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
		dst = append(append(append(dst, p.before...), v...), p.after...)
	}
	if len(dst)-start > envelope.MaxContext {
		return nil, errKeyText
	}
	return envelope.Context(dst), nil
}

var errKeyText = fault.New(api.CodeInvalid, "building the context of a row: its primary key is not valid UTF-8 or makes the context longer than 8 KiB").
	WithField("pk")

// value is one template text, parsed. key is the index of its key column, or -1 with hold the other placeholder or "".
type value struct {
	before, hold, after string
	key                 int
}

func (v value) constant(d *Dataset, column string) string {
	switch v.hold {
	case holdTable:
		return d.Table
	case holdColumn:
		return column
	}
	return ""
}

// parse reads one template text. A brace that opens no placeholder is refused, so that a typing error can't become a
// constant that binds nothing.
func (d *Dataset) parse(name, text string) (value, error) {
	open := strings.IndexByte(text, '{')
	if open < 0 {
		if strings.IndexByte(text, '}') >= 0 {
			return value{}, badTemplate(name, "it has a } without a {")
		}
		return value{before: text, key: -1}, nil
	}
	end := d.endOfHold(text[open:])
	if end < 0 {
		return value{}, badTemplate(name, "{ must open one of {table}, {column}, {pk} or {pk.NAME} with NAME a key column")
	}
	v := value{before: text[:open], hold: text[open : open+end], after: text[open+end:], key: -1}
	if strings.ContainsAny(v.before+v.after, "{}") {
		return value{}, badTemplate(name, "it has more than one placeholder: give each its own context key")
	}
	switch {
	case v.hold == holdPK && len(d.PK) != 1:
		return value{}, badTemplate(name, "the primary key has several columns: say {pk.NAME}, each in its own context key")
	case v.hold == holdPK:
		v.key = 0
	case strings.HasPrefix(v.hold, holdPKOf):
		v.key = slices.Index(d.PK, v.hold[len(holdPKOf):len(v.hold)-1])
	}
	return v, nil
}

// endOfHold is the length of the placeholder that text begins with, or -1. Names of key columns are matched as they are:
// one may well hold a brace itself.
func (d *Dataset) endOfHold(text string) int {
	for _, h := range []string{holdTable, holdColumn, holdPK} {
		if strings.HasPrefix(text, h) {
			return len(h)
		}
	}
	longest := -1
	for _, name := range d.PK {
		if h := holdPKOf + name + "}"; strings.HasPrefix(text, h) {
			longest = max(longest, len(h))
		}
	}
	return longest
}

func badTemplate(name, why string) error {
	return fault.Newf(api.CodeInvalid, "reading the context template of %q: %s", name, why).WithField("context")
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}
