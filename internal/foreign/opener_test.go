package foreign_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/foreign"
	"github.com/keyturn/keyturn/internal/material"
)

func TestSourceValidate(t *testing.T) {
	for _, c := range []struct {
		src   foreign.Source
		field string // empty: accepted
	}{
		{foreign.Source{Format: "fernet"}, ""},
		{foreign.Source{Format: "fernet", Layout: "token", Encoding: "auto"}, ""},
		{foreign.Source{Format: "pgcrypto"}, ""},
		{foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}, ""},
		{foreign.Source{Format: "aes-256-cbc", Unauthenticated: true, Expect: "any"}, ""},
		{foreign.Source{Format: "aes-256-cbc", Layout: "openssl", Iterations: 100000, Unauthenticated: true, Expect: "utf8"}, ""},
		{foreign.Source{Format: "pgcrypto", Layout: "raw", IV: strings.Repeat("0f", 16), Unauthenticated: true, Expect: `\d+`}, ""},
		{foreign.Source{}, "from.format"},
		{foreign.Source{Format: "rot13"}, "from.format"},
		{foreign.Source{Format: "fernet", Layout: "iv"}, "from.layout"},
		{foreign.Source{Format: "fernet", Encoding: "rot13"}, "from.encoding"},
		{foreign.Source{Format: "fernet", IV: strings.Repeat("0f", 16)}, "from.iv"},
		{foreign.Source{Format: "fernet", Iterations: 1}, "from.iterations"},
		{foreign.Source{Format: "aes-256-cbc"}, "from.unauthenticated"},
		{foreign.Source{Format: "aes-256-cbc", Unauthenticated: true}, "from.expect"},
		{foreign.Source{Format: "pgcrypto", Unauthenticated: true}, "from.expect"},
		{foreign.Source{Format: "pgcrypto", Layout: "raw-iv", Expect: "utf8"}, "from.unauthenticated"},
		{foreign.Source{Format: "pgcrypto", Layout: "raw", IV: "0f", Unauthenticated: true, Expect: "utf8"}, "from.iv"},
		{foreign.Source{Format: "aes-256-cbc", Layout: "openssl", Iterations: 1_000_001, Unauthenticated: true, Expect: "utf8"}, "from.iterations"},
		{foreign.Source{Format: "aes-256-cbc", Layout: "openssl", Iterations: -1, Unauthenticated: true, Expect: "utf8"}, "from.iterations"},
		{foreign.Source{Format: "fernet", Expect: `(`}, "from.expect"},
		{foreign.Source{Format: "fernet", Expect: `a)|(?:.*`}, "from.expect"},
		{foreign.Source{Format: "fernet", Expect: strings.Repeat("a", 1001)}, "from.expect"},
	} {
		err := c.src.Validate()
		if want := map[bool]api.Code{true: "", false: api.CodeInvalid}[c.field == ""]; fault.CodeOf(err) != want || fault.FieldOf(err) != c.field {
			t.Errorf("%+v: field %q, %v", c.src, fault.FieldOf(err), err)
		}
		if c.field == "from.expect" && fault.NextOf(err) == "" {
			t.Errorf("%+v: no next step: %v", c.src, err)
		}
	}
}

func TestCandidates(t *testing.T) {
	many := make([]string, foreign.MaxCandidates+1)
	for i := range many {
		many[i] = fmt.Sprintf("%032d", i)
	}
	for name, c := range map[string]struct {
		src  foreign.Source
		keys []string
	}{
		"none":          {tokens, nil},
		"too many":      {tokens, many},
		"twice":         {tokens, []string{key32, other32, key32}},
		"short":         {tokens, []string{key32[:31]}},
		"long":          {tokens, []string{key32 + mac32}},
		"empty":         {foreign.Source{Format: "pgcrypto"}, []string{""}},
		"huge":          {foreign.Source{Format: "pgcrypto"}, []string{strings.Repeat("x", foreign.MaxCandidate+1)}},
		"over AES":      {unverified(foreign.Source{Format: "pgcrypto", Layout: "raw"}), []string{key32 + "x"}},
		"of no format":  {foreign.Source{Format: "x"}, []string{key32}},
		"between sizes": {foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}, []string{key32 + "x"}},
	} {
		var keys []*material.Bytes
		for _, k := range c.keys {
			keys = append(keys, material.New([]byte(k)))
		}
		_, err := foreign.New(c.src, keys)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "from.keys" && c.src.Format != "x" {
			t.Errorf("%s: %v", name, err)
		}
		for i, k := range keys {
			if k.Len() != 0 {
				t.Errorf("%s: candidate %d outlived the error", name, i+1)
			}
			if err != nil && c.keys[i] != "" && strings.Contains(err.Error(), c.keys[i]) {
				t.Errorf("%s: the error quotes a candidate", name)
			}
		}
	}
}

func TestCandidatesAreDestroyed(t *testing.T) {
	for _, src := range []foreign.Source{tokens, {Format: "pgcrypto"}, unverified(foreign.Source{Format: "aes-256-cbc", Layout: "openssl"})} {
		m := material.New([]byte(key32))
		o, err := foreign.New(src, []*material.Bytes{m})
		if err != nil {
			t.Fatal(err)
		}
		if kept := m.Len() > 0; kept != src.TakesPasswords() {
			t.Errorf("%s: kept %v", src.Format, kept)
		}
		o.Destroy()
		if m.Len() != 0 {
			t.Errorf("%s: it outlived the opener", src.Format)
		}
		refuses(t, o, "x", true, foreign.NotForeign)
	}
}

// A value that nothing verifies and that looks right under two keys is right under none.
func TestAmbiguousIsRefused(t *testing.T) {
	src := unverified(foreign.Source{Format: "aes-256-cbc", Expect: "any"})
	var value, second string
	for i := 0; second == ""; i++ { // one in 256 wrong keys finds a padding
		if i > 20_000 {
			t.Fatal("no wrong key finds a padding")
		}
		value = encrypted(t, key32, "an IV of sixteen", "078-05-1120")
		wrong := fmt.Sprintf("%032d", i)
		if _, _, v := opener(t, src, wrong).Open(nil, []byte(value), false, now); v == foreign.Opened {
			second = wrong
		}
	}
	refuses(t, opener(t, src, key32, second), value, false, foreign.Ambiguous)
	refuses(t, opener(t, src, second, key32, other32), value, false, foreign.Ambiguous)
	src.Expect = `[0-9-]+`
	opens(t, opener(t, src, second, key32), value, false, "078-05-1120", 1)
	opens(t, opener(t, src, key32, second), value, false, "078-05-1120", 0)
}

func TestTooLong(t *testing.T) {
	refuses(t, opener(t, tokens, key32), strings.Repeat("g", foreign.MaxValue+1), true, foreign.Malformed)
}

func TestEveryVerdictHasItsReason(t *testing.T) {
	seen := map[string]bool{}
	for v := foreign.NotForeign; v <= foreign.Unexpected; v++ {
		if v.Reason() == "" || seen[v.Reason()] {
			t.Errorf("verdict %d: %q", v, v.Reason())
		}
		seen[v.Reason()] = true
	}
	if foreign.Opened.Reason() != "" || foreign.Verdict(0).Reason() != "" {
		t.Error("a reason for nothing")
	}
	if got := fmt.Sprint(foreign.Formats()); got != "[[fernet token] [aes-256-cbc iv iv-hmac openssl] [pgcrypto pgp raw raw-iv]]" {
		t.Error(got)
	}
}
