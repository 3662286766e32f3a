package envelope

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestCanonicalContext(t *testing.T) {
	for name, c := range map[string]struct {
		m    map[string]string
		want string
	}{
		"nil map":          {nil, "\x00\x00"},
		"empty map":        {map[string]string{}, "\x00\x00"},
		"one pair":         {map[string]string{"patient": "17"}, "\x00\x01\x00\x07patient\x00\x0217"},
		"empty strings":    {map[string]string{"": ""}, "\x00\x01\x00\x00\x00\x00"},
		"sorted by bytes":  {map[string]string{"b": "1", "a": "2", "B": "3", "ä": "4"}, "\x00\x04\x00\x01B\x00\x013\x00\x01a\x00\x012\x00\x01b\x00\x011\x00\x02ä\x00\x014"},
		"prefix first":     {map[string]string{"ab": "", "a": ""}, "\x00\x02\x00\x01a\x00\x00\x00\x02ab\x00\x00"},
		"zero bytes, text": {map[string]string{"\x00": "\x00"}, "\x00\x01\x00\x01\x00\x00\x01\x00"},
	} {
		got, err := NewContext(c.m)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
		back, err := got.Map()
		if err != nil || !maps.Equal(back, c.m) {
			t.Errorf("%s: read back as %v, %v", name, back, err)
		}
	}
}

func TestContextRefuses(t *testing.T) {
	for name, pairs := range map[string][]Pair{
		"a key twice":           {{"a", "1"}, {"b", "2"}, {"a", "1"}},
		"the empty key twice":   {{"", "1"}, {"", "2"}},
		"a key not UTF-8":       {{"\xff", "1"}},
		"a value not UTF-8":     {{"a", "\xc3"}},
		"an overlong encoding":  {{"a", "\xc0\xaf"}},
		"a surrogate":           {{"a", "\xed\xa0\x80"}},
		"one byte too long":     {{"a", strings.Repeat("x", MaxContext-2-4-1+1)}},
		"a length over 16 bits": {{"a", strings.Repeat("x", 1<<16)}},
		"too many pairs":        manyPairs(2047),
	} {
		if _, err := AppendContext(nil, pairs); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "context" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, pairs := range map[string][]Pair{
		"just short enough": {{"a", strings.Repeat("x", MaxContext-2-4-1)}},
		"many short pairs":  manyPairs(1300),
	} {
		c, err := AppendContext(nil, pairs)
		if err != nil || len(c) > MaxContext {
			t.Errorf("%s: %d bytes, %v", name, len(c), err)
		}
	}
}

func manyPairs(n int) (pairs []Pair) {
	for i := range n {
		pairs = append(pairs, Pair{string([]rune{rune('A' + i/64), rune('0' + i%64)}), ""})
	}
	return pairs
}

func TestParseContextRefuses(t *testing.T) {
	for name, c := range map[string]string{
		"half a count":        "\x00",
		"a pair missing":      "\x00\x01",
		"half a length":       "\x00\x01\x00",
		"a key cut short":     "\x00\x01\x00\x02a",
		"no value":            "\x00\x01\x00\x01a",
		"a value cut short":   "\x00\x01\x00\x01a\x00\x02b",
		"something after":     "\x00\x01\x00\x01a\x00\x01b\x00",
		"more than counted":   "\x00\x01\x00\x01a\x00\x01b\x00\x01c\x00\x01d",
		"out of order":        "\x00\x02\x00\x01b\x00\x00\x00\x01a\x00\x00",
		"twice":               "\x00\x02\x00\x01a\x00\x00\x00\x01a\x00\x00",
		"not UTF-8":           "\x00\x01\x00\x01\xff\x00\x00",
		"a lie about 65535":   "\xff\xff",
		"longer than allowed": "\x00\x01\x00\x01a\x20\x00" + strings.Repeat("x", 8192),
	} {
		if pairs, err := ParseContext(Context(c)); fault.CodeOf(err) != api.CodeInvalid || pairs != nil {
			t.Errorf("%s: read as %v, %v", name, pairs, err)
		}
	}
}

// The canonical form is one to one: it doesn't depend on the order in which pairs come, and different maps never share
// it (CVE-2026-33729 and others: keys glued together collide).
func TestContextIsOneToOne(t *testing.T) {
	words := rapid.SampledFrom([]string{"", "a", "b", "ab", "ba", "\x00", "\x00\x01", "a\x00\x01b", "ä"})
	rapid.Check(t, func(t *rapid.T) {
		m, other := rapid.MapOfN(words, words, 0, 4).Draw(t, "m"), rapid.MapOfN(words, words, 0, 4).Draw(t, "other")
		c, err := NewContext(m)
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := ParseContext(c)
		if err != nil || len(pairs) != len(m) {
			t.Fatalf("reading back: %v, %v", pairs, err)
		}
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		shuffled, err := AppendContext(make([]byte, 0, 100), pairs)
		if err != nil || !bytes.Equal(shuffled, c) {
			t.Fatalf("another order gives other bytes: %q, %q", shuffled, c)
		}
		d, err := NewContext(other)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(c, d) != maps.Equal(m, other) {
			t.Fatalf("%v and %v share a form: %q", m, other, c)
		}
	})
}

// An error names the field, never the value (P3).
func TestContextErrorsShowNoValue(t *testing.T) {
	const canary = "078-05-1120"
	for _, pairs := range [][]Pair{{{canary, "1"}, {canary, "2"}}, {{canary, "\xff"}}, {{"a", strings.Repeat(canary, 1000)}}} {
		if _, err := AppendContext(nil, pairs); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("the error says %v", err)
		}
	}
}

func TestAppendContextAppends(t *testing.T) {
	pairs := []Pair{{"b", "2"}, {"a", "1"}}
	got, err := AppendContext([]byte("before"), pairs)
	want := append([]byte("before"), testContext(t, "a", "1", "b", "2")...)
	if err != nil || !bytes.Equal(got, want) || !slices.IsSortedFunc(pairs, byKey) {
		t.Errorf("%q, %v", got, err)
	}
}
