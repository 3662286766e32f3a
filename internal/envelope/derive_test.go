package envelope

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// refDerive is the derivation once more, from CRYPTO.md.
func refDerive(m refMessage, label string, n int) []byte {
	info := []byte("keyturn/v1/derive\x00" + label + "\x00" + m.purpose + "\x00")
	info = append(info, m.header.KeyID[:]...)
	info = append(info, m.headerBytes()[20:]...)
	info = append(append(info, sum256(m.context)...), byte(n>>8), byte(n))
	return refExpand(refHMAC512, m.key, info, n)
}

func TestDeriveAgreesWithReference(t *testing.T) {
	ctx := testContext(t, "tenant", "acme")
	for _, s := range sealing {
		k := testKey(t, s)
		for n := 16; n <= 64; n++ {
			got, err := k.AppendDerived([]byte("before"), "token", ctx, n)
			if err != nil {
				t.Fatal(err)
			}
			m := refMessage{key: testMaterial, header: k.Header(), purpose: "phi", context: ctx}
			if want := append([]byte("before"), refDerive(m, "token", n)...); !bytes.Equal(got, want) {
				t.Fatalf("%v, %d bytes: %x, want %x", s, n, got, want)
			}
		}
	}
}

// Every input of a derivation counts: no two of these share even their first 16 bytes, and none is a prefix of another.
func TestDerivedKeysAreApart(t *testing.T) {
	type input struct {
		change func(*refMessage)
		label  string
		ctx    Context
		n      int
	}
	same := func(*refMessage) {}
	inputs := map[string]input{
		"as it is":           {same, "token", testContext(t, "a", "b"), 32},
		"other length":       {same, "token", testContext(t, "a", "b"), 33},
		"other label":        {same, "tokens", testContext(t, "a", "b"), 32},
		"other context":      {same, "token", testContext(t, "a", "c"), 32},
		"empty context":      {same, "token", nil, 32},
		"other version":      {func(m *refMessage) { m.header.Version = 8 }, "token", testContext(t, "a", "b"), 32},
		"other id":           {func(m *refMessage) { m.header.KeyID[0]++ }, "token", testContext(t, "a", "b"), 32},
		"other purpose":      {func(m *refMessage) { m.purpose = "pii" }, "token", testContext(t, "a", "b"), 32},
		"other material":     {func(m *refMessage) { m.key = bytes.Repeat([]byte{9}, 32) }, "token", testContext(t, "a", "b"), 32},
		"label and purpose":  {func(m *refMessage) { m.purpose = "oken" }, "t", testContext(t, "a", "b"), 32},
		"the cipher's label": {same, labelAEAD, testContext(t, "a", "b"), 32},
	}
	seen := map[string]string{}
	for name, in := range inputs {
		k := testKey(t, SuiteStandard, in.change)
		out, err := k.AppendDerived(nil, in.label, in.ctx, in.n)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := k.AppendDerived(nil, in.label, in.ctx, in.n)
		if !bytes.Equal(out, again) || len(out) != in.n {
			t.Errorf("%s: not the same twice", name)
		}
		if other, ok := seen[string(out[:16])]; ok {
			t.Errorf("%q and %q derive the same bytes", name, other)
		}
		seen[string(out[:16])] = name
	}
}

func TestDeriveRefuses(t *testing.T) {
	k := testKey(t, SuiteStandard)
	for name, c := range map[string]struct {
		field, label string
		ctx          Context
		n            int
	}{
		"no label":       {"label", "", nil, 32},
		"a zero byte":    {"label", "a\x00b", nil, 32},
		"a long label":   {"label", fmt.Sprintf("%0129d", 0), nil, 32},
		"15 bytes":       {"bytes", "x", nil, 15},
		"65 bytes":       {"bytes", "x", nil, 65},
		"minus one":      {"bytes", "x", nil, -1},
		"a huge context": {"context", "x", make(Context, MaxContext+1), 32},
	} {
		if _, err := k.AppendDerived(nil, c.label, c.ctx, c.n); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}
