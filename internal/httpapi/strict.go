package httpapi

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxDepth and MaxTokens bound what one request body may make the decoder do. A token is a value, or the name of a
// member of a map. The routes that take batches allow MaxBatchTokens: 1,000 items with contexts of a dozen pairs.
const (
	MaxDepth       = 32
	MaxTokens      = 10_000
	MaxBatchTokens = 50_000
)

// decodeStrict reads exactly one JSON document (RFC 8259) into v, a pointer to the request type that p was made of. It
// is stricter than encoding/json, and on purpose: what two parsers could read differently is refused.
//
//   - A member that the type doesn't have in exactly this spelling, and a member that appears twice.
//   - A member without omitempty that is missing, and null anywhere.
//   - A value of another type, a number out of the field's range, base64 that isn't canonical (RFC 4648 section 4).
//   - Anything after the document, bytes that aren't UTF-8, half a surrogate pair, depth or tokens over the limits.
//
// Errors are of code invalid and name the field by its path ("items[3].context"), never a value, nor a name that the
// caller made up.
func decodeStrict(data []byte, v any, p *plan, maxTokens int) error {
	if !utf8.Valid(data) {
		return badField("", "the body must be UTF-8")
	}
	s := scanner{data: data, tokens: maxTokens}
	s.space()
	if err := s.value(p, ""); err != nil {
		return err
	}
	if s.space(); s.at < len(s.data) {
		return badField("", "something follows the JSON document")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return badField("", "the body doesn't fit what this route takes")
	}
	return nil
}

// scanner walks a document along a plan; it checks, and builds nothing.
type scanner struct {
	data   []byte
	at     int
	depth  int
	tokens int // how many are still allowed
}

// value checks one value against p. field is the value's path, for errors.
func (s *scanner) value(p *plan, field string) error {
	if err := s.count(field); err != nil {
		return err
	}
	switch p.kind {
	case kindObject:
		return s.object(p, field)
	case kindMap:
		return s.mapping(p, field)
	case kindList:
		return s.list(p, field)
	}
	return s.leaf(p, field)
}

func (s *scanner) count(field string) error {
	if s.tokens--; s.tokens < 0 {
		return badField(field, "the document holds too many values")
	}
	return nil
}

// object checks an object that stands for a struct.
func (s *scanner) object(p *plan, field string) error {
	seen := make([]bool, len(p.members))
	err := s.sequence('{', '}', p, field, func() error {
		name, err := s.name(field)
		if err != nil {
			return err
		}
		i, ok := p.index[name]
		switch {
		case !ok:
			return badField(field, "it has an unknown member; known are "+p.names)
		case seen[i]:
			return badField(join(field, name), "it appears twice")
		}
		seen[i] = true
		return s.value(p.members[i].plan, join(field, name))
	})
	for i, m := range p.members {
		if err == nil && m.required && !seen[i] {
			return badField(join(field, m.name), "it is missing")
		}
	}
	return err
}

// mapping checks an object that stands for a map. Its names are the caller's own, so no error quotes one.
func (s *scanner) mapping(p *plan, field string) error {
	seen := map[string]bool{}
	return s.sequence('{', '}', p, field, func() error {
		name, err := s.name(field)
		if err != nil {
			return err
		}
		if seen[name] {
			return badField(field, "a name appears twice in it")
		}
		seen[name] = true
		if err := s.count(field); err != nil {
			return err
		}
		return s.value(p.elem, field)
	})
}

func (s *scanner) list(p *plan, field string) error {
	i := 0
	return s.sequence('[', ']', p, field, func() error {
		err := s.value(p.elem, field+"["+strconv.Itoa(i)+"]")
		i++
		return err
	})
}

// sequence walks "open member , member … close"; each checks one member.
func (s *scanner) sequence(open, end byte, p *plan, field string, each func() error) error {
	if !s.eat(open) {
		return wrongType(p, field)
	}
	if s.depth++; s.depth > MaxDepth {
		return badField(field, "the document is nested too deeply")
	}
	defer func() { s.depth-- }()
	if s.space(); s.eat(end) {
		return nil
	}
	for {
		s.space()
		if err := each(); err != nil {
			return err
		}
		if s.space(); s.eat(end) {
			return nil
		}
		if !s.eat(',') {
			return notJSON(field)
		}
	}
}

// name reads a member's name and the colon after it, and stands before the value.
func (s *scanner) name(field string) (string, error) {
	raw, ok := s.text()
	if !ok {
		return "", notJSON(field)
	}
	if s.space(); !s.eat(':') {
		return "", notJSON(field)
	}
	s.space()
	name, ok := unquote(raw)
	if !ok {
		return "", notJSON(field)
	}
	return name, nil
}

func (s *scanner) eat(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// space skips the four bytes that RFC 8259 calls whitespace.
func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// text reads a string with its quotes. Whether its escapes are right is for unquote to say.
func (s *scanner) text() (raw []byte, ok bool) {
	start := s.at
	if !s.eat('"') {
		return nil, false
	}
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return s.data[start:s.at], true
		case c == '\\':
			s.at++
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func badField(field, why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading the request: "+why).WithField(field)
}

func notJSON(field string) *fault.Error { return badField(field, "the body is not well-formed JSON") }

func wrongType(p *plan, field string) *fault.Error {
	return badField(field, "it must be "+p.describe())
}
