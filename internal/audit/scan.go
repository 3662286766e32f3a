package audit

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// fields are the places in a scanned line that filters and the verifier look at: the raw JSON between the quotes, still
// escaped. They point into the line.
type fields struct {
	time, kind, user, resource, requestID []byte
	success                               bool
	keyVersion                            []byte

	scratch [][]byte // for the scanner's use from line to line
}

// The verdicts of the scanner. They are shown as the reason why a line is bad.
const (
	badShape    = "not one JSON object of an event's fields in their order"
	badString   = "a string that is not valid JSON"
	badNumber   = "a number that is not a plain integer"
	badTime     = "a timestamp of another form"
	badDetails  = "details that are not a flat object with each name once"
	badMembers  = "an object without exactly its members, each once"
	badTrailing = "something after the end of the object"
)

// scanner walks strictly over one line: no insignificant space, every known field at its place, no field twice. What
// passes here means the same to every JSON reader, so nobody's tools see another event than the verifier saw.
type scanner struct {
	b   []byte
	i   int
	bad string // the first problem; empty while all is well

	names [][]byte // of the objects that are open, to find a name that comes twice
}

// scanLine checks a stored line, that is one without shard and index. The verdict is empty when the line is well formed.
func scanLine(line []byte, f *fields) (bad string) {
	s := scanner{b: line, names: f.scratch[:0]}
	s.literal(`{"timestamp":`)
	f.time = s.str()
	if s.bad == "" && !isTime(f.time) {
		s.fail(badTime)
	}
	s.literal(`,"event_type":`)
	f.kind = s.str()
	s.literal(`,"action":`)
	s.str()
	s.literal(`,"success":`)
	f.success = s.flag()
	s.literal(`,"user_id":`)
	f.user = s.str()
	if s.option(`,"role":`) {
		s.str()
	}
	s.literal(`,"resource":`)
	f.resource = s.str()
	f.keyVersion, f.requestID = nil, nil
	if s.option(`,"key_version":`) {
		f.keyVersion = s.number()
	}
	if s.option(`,"reason":`) {
		s.str()
	}
	if s.option(`,"request_id":`) {
		f.requestID = s.str()
	}
	if s.option(`,"source_ip":`) {
		s.str()
	}
	if s.option(`,"details":`) {
		s.details()
	}
	s.literal(`,"process_id":`)
	s.number()
	s.literal(`,"environment":`)
	s.str()
	s.literal(`}`)
	if s.bad == "" && s.i != len(line) {
		s.fail(badTrailing)
	}
	f.scratch = s.names
	return s.bad
}

func (s *scanner) fail(why string) {
	if s.bad == "" {
		s.bad = why
	}
	s.i = len(s.b) // nothing after the first problem is looked at
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// option steps over text when it comes next.
func (s *scanner) option(text string) bool {
	if len(s.b)-s.i < len(text) || string(s.b[s.i:s.i+len(text)]) != text {
		return false
	}
	s.i += len(text)
	return true
}

func (s *scanner) literal(text string) {
	if !s.option(text) {
		s.fail(badShape)
	}
}

func (s *scanner) flag() bool {
	if s.option("true") {
		return true
	}
	s.literal("false")
	return false
}

// str steps over a string and returns what is between its quotes.
func (s *scanner) str() []byte {
	if s.peek() != '"' {
		s.fail(badShape)
		return nil
	}
	s.i++
	start := s.i
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case plain[c]:
			s.i++
		case c == '"':
			s.i++
			return s.b[start : s.i-1]
		case c == '\\':
			s.escape()
		case c < ' ':
			s.fail(badString)
		default:
			s.rune()
		}
	}
	s.fail(badString)
	return nil
}

// escape steps over one escape (RFC 8259 section 7). Half a surrogate pair is refused: readers differ on what it means.
func (s *scanner) escape() {
	if s.i+1 >= len(s.b) {
		s.fail(badString)
		return
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return
	case 'u':
		switch high := s.hex4(s.i + 2); {
		case high < 0 || high>>10 == 0xDC00>>10:
		case high>>10 != 0xD800>>10:
			s.i += 6
			return
		case s.i+7 < len(s.b) && s.b[s.i+6] == '\\' && s.b[s.i+7] == 'u' && s.hex4(s.i+8)>>10 == 0xDC00>>10:
			s.i += 12
			return
		}
	}
	s.fail(badString)
}

// hex4 reads four hexadecimal digits, -1 when there are none.
func (s *scanner) hex4(at int) int {
	if at+4 > len(s.b) {
		return -1
	}
	v := 0
	for _, c := range s.b[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			v = v<<4 | int(c-'A'+10)
		default:
			return -1
		}
	}
	return v
}

func (s *scanner) rune() {
	r, size := utf8.DecodeRune(s.b[s.i:])
	if r == utf8.RuneError && size <= 1 {
		s.fail(badString)
		return
	}
	s.i += size
}

// number steps over an integer as the codec writes them: digits without a leading zero, a minus only before a number.
func (s *scanner) number() []byte {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	first := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	n := s.i - first
	if n == 0 || n > 20 || (s.b[first] == '0' && (n > 1 || first > start)) {
		s.fail(badNumber)
		return nil
	}
	return s.b[start:s.i]
}

// maxNames is how many names an object in the details may have: twice what the codec knows, for those of later releases.
const maxNames = 128

// details steps over the details object: names of small letters, digits and underscores, each once; values that are
// strings, integers or booleans, and flat objects of strings.
func (s *scanner) details() { s.object(false) }

// flatObject steps over an object whose values are strings and whose names are anything, each once.
func (s *scanner) flatObject() { s.object(true) }

// object steps over an object; flat ones hold strings only and may be empty.
func (s *scanner) object(flat bool) {
	s.literal("{")
	if flat && s.option("}") {
		return
	}
	first := len(s.names)
	for {
		name := s.str()
		if !flat && !isDetailName(name) {
			s.fail(badDetails)
			break
		}
		s.once(name, first)
		s.literal(":")
		switch c := s.peek(); {
		case c == '"' || flat:
			s.str()
		case c == 't' || c == 'f':
			s.flag()
		case c == '{':
			s.flatObject()
		default:
			s.number()
		}
		if !s.option(",") {
			break
		}
	}
	s.literal("}")
	s.names = s.names[:first]
}

// members steps over an object of exactly these members in any order, each by the function beside it.
func (s *scanner) members(known map[string]func()) {
	s.literal("{")
	seen := map[string]bool{}
	for more := true; more && s.bad == ""; more = s.option(",") {
		name := string(s.str())
		value := known[name]
		if value == nil || seen[name] {
			s.fail(badMembers)
			return
		}
		seen[name] = true
		s.literal(":")
		value()
	}
	if s.literal("}"); len(seen) < len(known) {
		s.fail(badMembers)
	}
}

// once refuses a name that the object, whose names start at first, has already.
func (s *scanner) once(name []byte, first int) {
	if bytes.IndexByte(name, '\\') >= 0 { // compare what the escapes mean, not how they are written
		name = unescape(name)
	}
	for _, other := range s.names[first:] {
		if bytes.Equal(other, name) {
			s.fail(badDetails)
			return
		}
	}
	if len(s.names)-first == maxNames {
		s.fail(badDetails)
		return
	}
	s.names = append(s.names, name)
}

// unescape returns what a checked JSON string without its quotes means.
func unescape(raw []byte) []byte {
	var text string
	if err := json.Unmarshal([]byte(`"`+string(raw)+`"`), &text); err != nil {
		return raw // a checked string never gets here
	}
	return []byte(text)
}

func isDetailName(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return len(name) > 0
}

// isFlatObject says whether text is one flat JSON object of strings and nothing else.
func isFlatObject(text string) bool {
	s := scanner{b: []byte(text)}
	s.flatObject()
	return s.bad == "" && s.i == len(s.b)
}

// isTime says whether raw has the shape of AppendTime's text. It doesn't look at the calendar.
func isTime(raw []byte) bool {
	const shape = "0000-00-00T00:00:00.000000Z"
	if len(raw) != len(shape) {
		return false
	}
	for i, c := range raw {
		if shape[i] == '0' && (c < '0' || c > '9') || shape[i] != '0' && c != shape[i] {
			return false
		}
	}
	return true
}
