package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a plan accepts.
type kind uint8

const (
	kindObject   kind = iota + 1 // a struct
	kindMap                      // a map with string keys
	kindList                     // a slice
	kindText                     // a string
	kindBase64                   // a []byte
	kindInteger                  // a signed integer of some width
	kindUnsigned                 // an unsigned one
	kindBool
)

// plan is what decodeStrict knows of a request type: made once for each row when the table is built, read by everyone.
type plan struct {
	kind    kind
	bits    int            // integers: their width
	elem    *plan          // maps and lists: of the values
	members []member       // objects: in the order of the struct's fields
	index   map[string]int // objects: name -> place in members
	names   string         // objects: every name, for errors
}

type member struct {
	name     string
	required bool // its tag has no omitempty
	plan     *plan
}

// needsBody says whether an empty body is no answer to this plan.
func (p *plan) needsBody() bool {
	return slices.ContainsFunc(p.members, func(m member) bool { return m.required })
}

// planOf makes the plan of a request type. Request types are structs of strings, bytes, integers, booleans, and slices,
// maps and optional structs (by pointer) of those; anything else is a mistake in the route table and panics while it is built.
func planOf(t reflect.Type) *plan { return planner{}.plan(t) }

// planner knows the plans of the structs that it has begun, so that a type may hold itself.
type planner map[reflect.Type]*plan

func (pl planner) plan(t reflect.Type) *plan {
	switch t.Kind() {
	case reflect.Struct:
		return pl.object(t)
	case reflect.Pointer: // an object that may be left out; null is refused as everywhere
		if t.Elem().Kind() == reflect.Struct {
			return pl.object(t.Elem())
		}
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return &plan{kind: kindMap, elem: pl.plan(t.Elem())}
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &plan{kind: kindBase64}
		}
		return &plan{kind: kindList, elem: pl.plan(t.Elem())}
	case reflect.String:
		return &plan{kind: kindText}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return &plan{kind: kindInteger, bits: t.Bits()}
	case reflect.Uint32, reflect.Uint64:
		return &plan{kind: kindUnsigned, bits: t.Bits()}
	case reflect.Bool:
		return &plan{kind: kindBool}
	}
	panic("httpapi: no strict plan for a request with a " + t.String())
}

func (pl planner) object(t reflect.Type) *plan {
	if p := pl[t]; p != nil {
		return p
	}
	p := &plan{kind: kindObject, index: map[string]int{}}
	pl[t] = p
	var names []string
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || f.Anonymous || name == "" {
			panic("httpapi: request field " + t.Name() + "." + f.Name + " needs a json name")
		}
		p.index[name] = len(p.members)
		p.members = append(p.members, member{name, options != "omitempty", pl.plan(f.Type)})
		names = append(names, name)
	}
	p.names = strings.Join(names, ", ")
	return p
}

// describe says what a plan accepts, for "it must be …".
func (p *plan) describe() string {
	switch p.kind {
	case kindObject:
		return "an object with " + p.names
	case kindMap:
		return "an object whose values are each " + p.elem.describe()
	case kindList:
		return "an array"
	case kindBase64:
		return "a string of standard base64 with padding"
	case kindInteger:
		return "an integer"
	case kindUnsigned:
		return "an integer that is not negative"
	case kindBool:
		return "true or false"
	}
	return "a string"
}

// leaf checks a value that holds no others.
func (s *scanner) leaf(p *plan, field string) error {
	ok := false
	switch p.kind {
	case kindText:
		var raw []byte
		if raw, ok = s.text(); ok {
			_, ok = unquote(raw)
		}
	case kindBase64:
		var raw []byte
		if raw, ok = s.text(); ok {
			ok = canonicalBase64(raw[1 : len(raw)-1])
		}
	case kindInteger:
		_, err := strconv.ParseInt(s.digits(), 10, p.bits)
		ok = err == nil
	case kindUnsigned:
		_, err := strconv.ParseUint(s.digits(), 10, p.bits)
		ok = err == nil
	case kindBool:
		ok = s.word("true") || s.word("false")
	}
	if !ok {
		return wrongType(p, field)
	}
	return nil
}

// digits reads an integer as RFC 8259 section 6 writes it; "" when the number has a fraction, an exponent, or a zero in
// front. "-0" is refused too: as an unsigned number it would be read differently from one parser to the next.
func (s *scanner) digits() string {
	start := s.at
	s.eat('-')
	first := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	text := string(s.data[start:s.at])
	if leading := s.data[first:s.at]; len(leading) > 1 && leading[0] == '0' || text == "-0" || s.numeric() {
		return ""
	}
	return text
}

// numeric says whether the next byte would carry on a number.
func (s *scanner) numeric() bool {
	return s.at < len(s.data) && strings.IndexByte(".eE+-", s.data[s.at]) >= 0
}

func (s *scanner) word(w string) bool {
	if strings.HasPrefix(string(s.data[s.at:min(len(s.data), s.at+len(w))]), w) {
		s.at += len(w)
		return true
	}
	return false
}

// canonicalBase64 reports whether text is what base64.StdEncoding writes for some bytes: no line breaks, padded, no stray
// bits at the end.
func canonicalBase64(text []byte) bool {
	for _, c := range text {
		if c == '\n' || c == '\r' || c == '\\' {
			return false
		}
	}
	_, err := base64.StdEncoding.Strict().Decode(make([]byte, base64.StdEncoding.DecodedLen(len(text))), text)
	return err == nil
}

// unquote reads a JSON string with its quotes. It refuses half of a surrogate pair, which encoding/json would turn into
// U+FFFD: two different requests would then mean the same.
func unquote(raw []byte) (string, bool) {
	plain := true
	for i := 1; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			continue
		}
		plain = false
		if i++; raw[i] == 'u' {
			n, ok := surrogates(raw[i-1 : len(raw)-1])
			if !ok {
				return "", false
			}
			i += n - 2
		}
	}
	if plain {
		return string(raw[1 : len(raw)-1]), true
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err == nil
}

// surrogates measures the \uXXXX at the front of text, together with the second one when the first is the first half
// of a pair; not ok when a half stands alone.
func surrogates(text []byte) (length int, ok bool) {
	first, ok := hexEscape(text)
	if !ok || first < 0xD800 || first > 0xDFFF {
		return 6, ok
	}
	second, ok := hexEscape(text[6:])
	return 12, ok && first < 0xDC00 && second >= 0xDC00 && second <= 0xDFFF
}

func hexEscape(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return utf8.RuneError, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}
