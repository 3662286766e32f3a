package httpapi

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// everything has a member of every kind that request types use.
type everything struct {
	Text     string            `json:"text"`
	Bytes    []byte            `json:"bytes,omitempty"`
	Int      int               `json:"int,omitempty"`
	Narrow   uint32            `json:"narrow,omitempty"`
	Wide     uint64            `json:"wide,omitempty"`
	Flag     bool              `json:"flag,omitempty"`
	Map      map[string]string `json:"map,omitempty"`
	List     []string          `json:"list,omitempty"`
	Items    []item            `json:"items,omitempty"`
	Together item              `json:"together,omitempty"`
}

type item struct {
	Name string `json:"name"`
}

func decodeEverything(text string) (everything, error) {
	var v everything
	return v, decodeStrict([]byte(text), &v, planOf(reflect.TypeFor[everything]()), MaxTokens)
}

func TestStrictAccepts(t *testing.T) {
	for _, text := range []string{
		`{"text":"a"}`,
		" {\n\t\"text\" : \"a\" } \r\n",
		`{"text":"","bytes":"","int":0,"map":{},"list":[],"items":[]}`,
		`{"text":"é😀 \"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","bytes":"AAEC/+8=","int":-9223372036854775808,"narrow":4294967295,"wide":18446744073709551615}`,
		`{"flag":true,"text":"a","map":{"a":"1","b":"2","":""},"list":["x","y"],"items":[{"name":"n"},{"name":"m"}],"together":{"name":"n"}}`,
		`{"te\u0078t":"a"}`,
	} {
		got, err := decodeEverything(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		var want everything
		if err := json.Unmarshal([]byte(text), &want); err != nil || !reflect.DeepEqual(got, want) && got.Text != want.Text {
			t.Errorf("%s: decoded %+v, encoding/json gives %+v (%v)", text, got, want, err)
		}
	}
}

func TestStrictRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, field string }{
		"nothing":                 {"", ""},
		"null":                    {"null", ""},
		"a list":                  {"[]", ""},
		"unknown member":          {`{"text":"a","extra":1}`, ""},
		"other case":              {`{"Text":"a"}`, ""},
		"unknown nested":          {`{"text":"a","items":[{"name":"n"},{"nam":"n"}]}`, "items[1]"},
		"twice":                   {`{"text":"a","text":"a"}`, "text"},
		"twice, escaped":          {`{"text":"a","te\u0078t":"a"}`, "text"},
		"twice in a map":          {`{"text":"a","map":{"k":"1","k":"1"}}`, "map"},
		"missing":                 {`{}`, "text"},
		"missing nested":          {`{"text":"a","items":[{}]}`, "items[0].name"},
		"null member":             {`{"text":null}`, "text"},
		"null optional":           {`{"text":"a","map":null}`, "map"},
		"number for text":         {`{"text":1}`, "text"},
		"text for number":         {`{"text":"a","int":"1"}`, "int"},
		"fraction":                {`{"text":"a","int":1.0}`, "int"},
		"exponent":                {`{"text":"a","int":1e3}`, "int"},
		"leading zero":            {`{"text":"a","int":01}`, "int"},
		"minus zero":              {`{"text":"a","int":-0}`, "int"},
		"plus":                    {`{"text":"a","int":+1}`, "int"},
		"hexadecimal":             {`{"text":"a","int":0x1}`, ""},
		"too wide":                {`{"text":"a","narrow":4294967296}`, "narrow"},
		"negative":                {`{"text":"a","wide":-1}`, "wide"},
		"not a flag":              {`{"text":"a","flag":"true"}`, "flag"},
		"half a word":             {`{"text":"a","flag":tru}`, "flag"},
		"number in a map":         {`{"text":"a","map":{"k":1}}`, "map"},
		"map in a map":            {`{"text":"a","map":{"k":{}}}`, "map"},
		"list for a map":          {`{"text":"a","map":[]}`, "map"},
		"object for a list":       {`{"text":"a","list":{}}`, "list"},
		"number in a list":        {`{"text":"a","list":["x",2]}`, "list[1]"},
		"base64url":               {`{"text":"a","bytes":"__8="}`, "bytes"},
		"base64 without padding":  {`{"text":"a","bytes":"AAE"}`, "bytes"},
		"base64 with stray bits":  {`{"text":"a","bytes":"AAF="}`, "bytes"},
		"base64 with line breaks": {`{"text":"a","bytes":"AA\nE="}`, "bytes"},
		"base64 with escapes":     {`{"text":"a","bytes":"\u0041AE="}`, "bytes"},
		"trailing comma":          {`{"text":"a",}`, ""},
		"trailing comma in list":  {`{"text":"a","list":["x",]}`, "list[1]"},
		"trailing data":           {`{"text":"a"}{}`, ""},
		"trailing word":           {`{"text":"a"} x`, ""},
		"comment":                 {`{"text":"a"/**/}`, ""},
		"single quotes":           {`{'text':'a'}`, ""},
		"control character":       {"{\"text\":\"a\nb\"}", "text"},
		"half a pair":             {`{"text":"\ud83d"}`, "text"},
		"half a pair, low":        {`{"text":"\ude00"}`, "text"},
		"pair the wrong way":      {`{"text":"\ude00\ud83d"}`, "text"},
		"half a pair, then text":  {`{"text":"\ud83d rest"}`, "text"},
		"bad escape":              {`{"text":"\x41"}`, "text"},
		"short escape":            {`{"text":"\u41"}`, "text"},
		"unterminated":            {`{"text":"a`, "text"},
		"unterminated escape":     {`{"text":"a\`, "text"},
		"not UTF-8":               {"{\"text\":\"\xff\"}", ""},
		"byte order mark":         {"\ufeff{\"text\":\"a\"}", ""},
	} {
		_, err := decodeEverything(c.text)
		if fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fault.FieldOf(err); got != c.field {
			t.Errorf("%s: field %q, want %q", name, got, c.field)
		}
	}
}

// Row 44: depth and tokens are bounded, and the bound is where it says.
func TestAdvisory_CVE_2025_6203(t *testing.T) {
	type node struct {
		Next []node `json:"next,omitempty"`
	}
	nested := func(n int) error { // one object, then n times a list with an object
		var v node
		text := "{" + strings.Repeat(`"next":[{`, n) + strings.Repeat(`}]`, n) + "}"
		return decodeStrict([]byte(text), &v, planOf(reflect.TypeFor[node]()), MaxTokens)
	}
	if err := nested((MaxDepth - 1) / 2); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	if err := nested(MaxDepth / 2); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("depth %d: %v", MaxDepth+1, err)
	}
	if err := nested(200_000); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a million brackets: %v", err)
	}
	list := func(n int) string { return `{"text":"a","list":["` + strings.Repeat(`","`, n-1) + `"]}` }
	tokens := MaxTokens - 3 // the document, its text, its list
	if _, err := decodeEverything(list(tokens)); err != nil {
		t.Errorf("%d tokens: %v", MaxTokens, err)
	}
	if _, err := decodeEverything(list(tokens + 1)); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("%d tokens: %v", MaxTokens+1, err)
	}
	pairs := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(`,"k` + strings.Repeat("x", i) + `":""`)
		}
		return `{"text":"a","map":{` + b.String()[1:] + `}}`
	}
	if _, err := decodeEverything(pairs(500)); err != nil {
		t.Errorf("500 pairs: %v", err)
	}
}

// Row 37: whatever is wrong with a document, its values don't come back in the error.
func TestAdvisory_CVE_2025_4166(t *testing.T) {
	const canary = "CANARY-7f3a"
	plan := planOf(reflect.TypeFor[everything]())
	for _, text := range []string{
		`{"text":{"` + canary + `":1}}`, `{"text":["` + canary + `"]}`, `{"int":"` + canary + `"}`, `{"` + canary + `":1}`,
		`{"bytes":"` + canary + `"}`, `{"text":"` + canary, `{"map":{"` + canary + `":1}}`, `{"map":{"` + canary + `":"","` + canary + `":""}}`,
		`{"list":{"` + canary + `":1}}`, `{"items":[{"` + canary + `":1}]}`, `{"flag":` + canary + `}`, `{"wide":` + canary + `}`, canary,
		`{"text":"a"}` + canary,
	} {
		var v everything
		err := decodeStrict([]byte(text), &v, plan, MaxTokens)
		if err == nil || strings.Contains(err.Error()+fault.FieldOf(err)+fault.NextOf(err), canary) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzStrict: what the strict decoder accepts, encoding/json accepts too and reads the same, and a second encoding of it
// decodes to the same again.
func FuzzStrict(f *testing.F) {
	f.Add([]byte(`{"text":"a","bytes":"AAE=","int":1,"map":{"k":"v"},"list":["x"],"items":[{"name":"n"}],"together":{"name":""}}`))
	f.Add([]byte(`{"text":"\ud83d\ude00 \u0000","wide":18446744073709551615,"flag":false}`))
	f.Add([]byte(`{"text":"a","text":"b"}`))
	plan := planOf(reflect.TypeFor[everything]())
	f.Fuzz(func(t *testing.T, text []byte) {
		var v, w, again everything
		if decodeStrict(text, &v, plan, MaxTokens) != nil {
			return
		}
		if err := json.Unmarshal(text, &w); err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("accepted %q as %+v; encoding/json: %+v, %v", text, v, w, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeStrict(b, &again, plan, math.MaxInt); err != nil && !strings.Contains(string(b), "null") && v.Together.Name != "" {
			t.Fatalf("%q was accepted and its own encoding %q is not: %v", text, b, err)
		}
	})
}
