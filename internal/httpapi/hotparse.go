package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/envelope"
)

// hotReader reads the usual shape of a crypto request: the members of one object in any order, strings of printable
// ASCII without escapes, whitespace between tokens. Whatever else it meets (an escape, an unknown or a repeated member, a
// mistake) it says so with ok = false, and decodeStrict reads the body from its beginning and decides. So this reader
// never makes an error of its own, and FuzzHotAgainstStrict holds what it accepts to what the strict one accepts.
type hotReader struct {
	b     []byte
	at    int
	pairs []envelope.Pair // of the last request's context, sorted by key
	text  string          // the last request's context as one flat JSON object, for the audit record; "" when it is empty
	spans []span          // scratch of context: name, value, name, value, …
}

// span is a part of the body.
type span struct{ from, to int }

// document reads a whole body that holds one request.
func (h *hotReader) document(member string) (value []byte, ok bool) {
	h.space()
	if value, ok = h.request(member); !ok {
		return nil, false
	}
	h.space()
	return value, h.at == len(h.b)
}

// request reads {"member": "…", "context": {…}} and gives the text of the member, a part of the body. The context is in
// pairs and text until the next request.
func (h *hotReader) request(member string) (value []byte, ok bool) {
	h.pairs, h.text = h.pairs[:0], ""
	seen := false // the context
	if !h.eat('{') {
		return nil, false
	}
	for {
		name, ok := h.name()
		switch {
		case !ok:
			return nil, false
		case string(h.b[name.from:name.to]) == member && value == nil:
			var s span
			s, ok = h.plain()
			value = h.b[s.from:s.to]
		case string(h.b[name.from:name.to]) == "context" && !seen:
			seen, ok = true, h.context()
		default:
			return nil, false
		}
		if !ok {
			return nil, false
		}
		if h.space(); h.eat('}') {
			return value, value != nil
		}
		if !h.eat(',') {
			return nil, false
		}
	}
}

// context reads an object of strings into pairs and text.
func (h *hotReader) context() bool {
	start := h.at
	h.spans = h.spans[:0]
	if !h.eat('{') {
		return false
	}
	if h.space(); h.eat('}') {
		return true
	}
	for {
		name, ok1 := h.name()
		value, ok2 := h.plain()
		if !ok1 || !ok2 {
			return false
		}
		h.spans = append(h.spans, name, value)
		if h.space(); h.eat('}') {
			return h.keep(start)
		}
		if !h.eat(',') {
			return false
		}
	}
}

// keep turns the spans of the object that began at start into pairs, with one allocation for all their texts.
func (h *hotReader) keep(start int) bool {
	text, size := string(h.b[start:h.at]), 1
	for i := 0; i < len(h.spans); i += 2 {
		k, v := h.spans[i], h.spans[i+1]
		h.pairs = append(h.pairs, envelope.Pair{Key: text[k.from-start : k.to-start], Value: text[v.from-start : v.to-start]})
		size += k.to - k.from + v.to - v.from + len(`"":"",`)
	}
	sorted := slices.IsSortedFunc(h.pairs, byName)
	if !sorted {
		slices.SortFunc(h.pairs, byName)
	}
	for i := range h.pairs[1:] {
		if h.pairs[i].Key == h.pairs[i+1].Key {
			return false
		}
	}
	if h.text = text; !sorted || size != len(text) { // another order than the canonical one, or whitespace
		h.text = contextText(h.pairs)
	}
	return true
}

func byName(a, b envelope.Pair) int { return strings.Compare(a.Key, b.Key) }

// name reads a member's name and the colon after it, and stands before the value.
func (h *hotReader) name() (span, bool) {
	h.space()
	s, ok := h.plain()
	if h.space(); !ok || !h.eat(':') {
		return s, false
	}
	h.space()
	return s, true
}

// usual tells the bytes that hotReader takes in a string: printable ASCII but the quote and the backslash.
var usual = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// plain reads a string and gives what stands between its quotes.
func (h *hotReader) plain() (s span, ok bool) {
	if !h.eat('"') {
		return s, false
	}
	i := h.at
	for i < len(h.b) && usual[h.b[i]] {
		i++
	}
	if i == len(h.b) || h.b[i] != '"' {
		return s, false
	}
	s = span{h.at, i}
	h.at = i + 1
	return s, true
}

func (h *hotReader) eat(c byte) bool {
	if h.at < len(h.b) && h.b[h.at] == c {
		h.at++
		return true
	}
	return false
}

func (h *hotReader) space() {
	for h.at < len(h.b) && (h.b[h.at] == ' ' || h.b[h.at] == '\n' || h.b[h.at] == '\r' || h.b[h.at] == '\t') {
		h.at++
	}
}

// items walks {"items": […]}, calling each with the reader before an item.
func (h *hotReader) items(each func() bool) bool {
	h.space()
	if !h.eat('{') {
		return false
	}
	name, ok := h.name()
	if !ok || string(h.b[name.from:name.to]) != "items" || !h.eat('[') {
		return false
	}
	if h.space(); !h.eat(']') {
		for {
			if h.space(); !each() {
				return false
			}
			if h.space(); h.eat(']') {
				break
			}
			if !h.eat(',') {
				return false
			}
		}
	}
	if h.space(); !h.eat('}') {
		return false
	}
	h.space()
	return h.at == len(h.b)
}

// strict64 is standard base64 with padding, refusing stray bits in the last character.
var strict64 = base64.StdEncoding.Strict()

// appendBase64 appends what text stands for. The decoder skips line breaks, which usual kept out already.
func appendBase64(dst, text []byte) ([]byte, bool) {
	dst, err := strict64.AppendDecode(dst, text)
	return dst, err == nil
}

// contextText is the context as one flat JSON object in the order of pairs, without whitespace; "" for no pairs.
func contextText(pairs []envelope.Pair) string {
	if len(pairs) == 0 {
		return ""
	}
	var b bytes.Buffer
	for i, p := range pairs {
		b.WriteByte("{,"[min(i, 1)])
		writeText(&b, p.Key)
		b.WriteByte(':')
		writeText(&b, p.Value)
	}
	b.WriteByte('}')
	return b.String()
}

func writeText(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)       // a string, into memory
	b.Truncate(b.Len() - 1) // Encode ends with a newline
}
