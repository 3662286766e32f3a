package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestScanLineRefuses(t *testing.T) {
	e := sampleEvent()
	good := string(AppendJSON(nil, &e))
	if bad := scanLine([]byte(good), &fields{}); bad != "" {
		t.Fatalf("a good line is refused: %s", bad)
	}
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the sample has no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, line := range map[string]string{
		"empty":                 "",
		"space inside":          swap(`":true`, `": true`),
		"space at the end":      good + " ",
		"carriage return":       good + "\r",
		"two objects":           good + good,
		"success twice":         swap(`"success":true`, `"success":true,"success":false`),
		"fields swapped":        swap(`"action":"rotated","success":true`, `"success":true,"action":"rotated"`),
		"unknown field":         swap(`,"environment"`, `,"extra":1,"environment"`),
		"missing user":          swap(`"user_id":"system",`, ``),
		"other case":            swap(`"user_id"`, `"User_id"`),
		"success as string":     swap(`"success":true`, `"success":"true"`),
		"number with zero":      swap(`"key_version":4`, `"key_version":04`),
		"number with dot":       swap(`"key_version":4`, `"key_version":4.0`),
		"number with exponent":  swap(`"key_version":4`, `"key_version":4e0`),
		"minus zero":            swap(`"key_version":4`, `"key_version":-0`),
		"number of 21 digits":   swap(`"key_version":4`, `"key_version":444444444444444444444`),
		"raw newline":           swap(`scheduled`, "sche\nduled"),
		"bad escape":            swap(`scheduled`, `\x41`),
		"short escape":          swap(`scheduled`, `\u12`),
		"lone high surrogate":   swap(`scheduled`, `\ud800`),
		"lone low surrogate":    swap(`scheduled`, `\udc00`),
		"invalid UTF-8":         swap(`scheduled`, "\xff"),
		"cut UTF-8":             swap(`scheduled`, "\xe2\x82"),
		"time with an offset":   swap(`45.123456Z`, `45.12345+1`),
		"short time":            swap(`45.123456Z`, `45Z`),
		"detail twice":          swap(`"old_version":3`, `"source":"api"`),
		"detail null":           swap(`"old_version":3`, `"old_version":null`),
		"detail float":          swap(`"old_version":3`, `"old_version":3.5`),
		"detail array":          swap(`"old_version":3`, `"old_version":[3]`),
		"detail nested":         swap(`"old_version":3`, `"old_version":{"a":{"b":"c"}}`),
		"detail nested twice":   swap(`"old_version":3`, `"old_version":{"a":"x","a":"y"}`),
		"nested twice, escaped": swap(`"old_version":3`, `"old_version":{"a":"x","\u0061":"y"}`),
		"detail odd name":       swap(`"old_version":3`, `"Old_Version":3`),
		"detail empty name":     swap(`"old_version":3`, `"":3`),
		"details empty":         swap(good[strings.Index(good, `"details":{`):strings.Index(good, `},"process`)+1], `"details":{}`),
		"details open":          swap(`"compliant"}`, `"compliant"`),
		"only a brace":          "{",
	} {
		if bad := scanLine([]byte(line), &fields{}); bad == "" {
			t.Errorf("%s: accepted: %s", name, line)
		}
	}
	for name, line := range map[string]string{
		"a detail of a later release": swap(`"old_version":3`, `"brand_new":3`),
		"an escaped surrogate pair":   swap(`scheduled`, `\ud83d\ude00`),
		"an empty context":            swap(`"old_version":3`, `"context":{}`),
		"negative number":             swap(`_id":12345`, `_id":-1`),
	} {
		if bad := scanLine([]byte(line), &fields{}); bad != "" {
			t.Errorf("%s: refused: %s", name, bad)
		}
	}
}

func TestScanLineFindsFields(t *testing.T) {
	e := sampleEvent()
	var f fields
	if bad := scanLine(AppendJSON(nil, &e), &f); bad != "" {
		t.Fatal(bad)
	}
	for _, c := range []struct{ got, want string }{
		{string(f.time), "2026-01-15T10:30:45.123456Z"}, {string(f.kind), "key_rotation"}, {string(f.user), "system"},
		{string(f.resource), "key/phi"}, {string(f.requestID), "0f3a"}, {string(f.keyVersion), "4"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if !f.success {
		t.Error("success is lost")
	}
}

// FuzzScanLine: what the strict scanner accepts, encoding/json accepts too, and sees the same in it.
func FuzzScanLine(f *testing.F) {
	e := sampleEvent()
	f.Add(AppendJSON(nil, &e))
	e.Details = Details{Context: `{"patient":"17","é":"\u00e9"}`, Emergency: true}
	f.Add(AppendJSON(nil, &e))
	f.Add([]byte(`{"timestamp":`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got fields
		if scanLine(line, &got) != "" {
			return
		}
		var v map[string]any
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("accepted %q, which encoding/json refuses: %v", line, err)
		}
		if user, _ := v["user_id"].(string); user != string(unescape(got.user)) {
			t.Errorf("user %q, encoding/json says %q", got.user, user)
		}
		if ok, _ := v["success"].(bool); ok != got.success {
			t.Errorf("success %v, encoding/json says %v", got.success, ok)
		}
	})
}
