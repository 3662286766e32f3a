package datasets_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// patients is a dataset that Validate accepts.
func patients() *datasets.Dataset {
	pk := []string{"id"}
	return &datasets.Dataset{
		ID: strings.Repeat("0", 32), Name: "patients", DSNEnv: "PATIENTS_DB", Table: "patients", PK: pk,
		Columns: []datasets.Column{{Name: "ssn", Key: "phi", KeyID: envelope.KeyID{1}}},
		Context: datasets.DefaultTemplate("", pk),
	}
}

// TestContextIsTheEnvelopes compares the compiled template with the plain way: replace the placeholders, make a map, have
// the envelope bring it into canonical form. An application does the latter.
func TestContextIsTheEnvelopes(t *testing.T) {
	name := rapid.StringMatching(`[a-zA-Z.{}" ü☃]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		d := patients()
		d.Table = name.Draw(t, "table")
		d.PK = rapid.SliceOfNDistinct(name, 1, 4, rapid.ID).Draw(t, "pk")
		d.Columns[0].Name = rapid.StringMatching(`c[a-z{}]{1,8}`).Draw(t, "column")
		if slices.Contains(d.PK, d.Columns[0].Name) {
			t.Skip("the column is in the key")
		}
		d.Context = map[string]string{}
		plain := rapid.StringMatching(`[a-z :/☃]{0,10}`)
		for i := range rapid.IntRange(0, 5).Draw(t, "constants") {
			d.Context[fmt.Sprintf("%s%d", plain.Draw(t, "key"), i)] = plain.Draw(t, "text")
		}
		for i, hold := range []string{"{table}", "{column}"} {
			d.Context[fmt.Sprintf("%sx%d", plain.Draw(t, "key"), i)] = plain.Draw(t, "before") + hold + plain.Draw(t, "after")
		}
		values := make([][]byte, len(d.PK))
		holds := map[string]string{"{table}": d.Table, "{column}": d.Columns[0].Name}
		for i, k := range d.PK {
			values[i] = []byte(rapid.String().Draw(t, "value"))
			hold := "{pk." + k + "}"
			if len(d.PK) == 1 && rapid.Bool().Draw(t, "short") {
				hold = "{pk}"
			}
			holds[hold] = string(values[i])
			d.Context[fmt.Sprintf("%sk%d", plain.Draw(t, "key"), i)] = plain.Draw(t, "before") + hold + plain.Draw(t, "after")
		}

		c, err := datasets.Compile(d, d.Columns[0].Name)
		if err != nil {
			t.Fatalf("compiling %v: %v", d.Context, err)
		}
		want := map[string]string{}
		for k, text := range d.Context {
			open := strings.IndexByte(text, '{')
			for _, hold := range slices.Sorted(maps.Keys(holds)) {
				if open >= 0 && strings.HasPrefix(text[open:], hold) && len(hold) >= len(longest(holds, text[open:])) {
					text = text[:open] + holds[hold] + text[open+len(hold):]
					break
				}
			}
			want[k] = text
		}
		canonical, err := envelope.NewContext(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.AppendContext(nil, values)
		if err != nil || !bytes.Equal(got, canonical) {
			t.Fatalf("template %v with %q:\n%q, want\n%q (%v)", d.Context, values, got, canonical, err)
		}
	})
}

// longest is the longest placeholder that text begins with.
func longest(holds map[string]string, text string) (found string) {
	for h := range holds {
		if strings.HasPrefix(text, h) && len(h) > len(found) {
			found = h
		}
	}
	return found
}

// TestAdvisory_CVE_2026_33729 is about keys made by putting strings together: two rows never have the same context,
// whatever their keys are made of.
func TestAdvisory_CVE_2026_33729(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := patients()
		d.PK = []string{"a", "b"}
		d.Context = datasets.DefaultTemplate("", d.PK)
		if rapid.Bool().Draw(t, "own template") {
			d.Context = map[string]string{"a": "x{pk.a}y", "b": "{pk.b}", "c": "{column}"}
		}
		c, err := datasets.Compile(d, "ssn")
		if err != nil {
			t.Fatal(err)
		}
		value := rapid.SliceOfN(rapid.StringMatching(`[ab{}.xy\x00]{0,4}`), 2, 2)
		one, two := value.Draw(t, "one"), value.Draw(t, "two")
		context := func(v []string) envelope.Context {
			out, err := c.AppendContext(nil, [][]byte{[]byte(v[0]), []byte(v[1])})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		if bytes.Equal(context(one), context(two)) != slices.Equal(one, two) {
			t.Fatalf("%q and %q", one, two)
		}
	})
}

// Row 74: a template reaches nothing but the row's own names and key, and what is wrong with one is said without its text.
func TestAdvisory_CVE_2022_38149(t *testing.T) {
	for _, text := range []string{
		"{{ env `HOME` }}", "{env.HOME}", "{file:/etc/passwd}", "{{ getHostByName `CANARY.example` }}", "{ssn}", "{column.ssn}", "{pk.ssn}", "CANARY{", "CANARY}", "{pk}{CANARY}",
		"{pk }", "{PK}", "CANARY\xff{pk}",
	} {
		d := patients()
		d.Context = map[string]string{"table": "{table}", "column": "{column}", "pk": "{pk}", "x": text}
		err := datasets.Validate(d)
		if err == nil {
			_, err = datasets.Compile(d, "ssn")
		}
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "context" || strings.Contains(fmt.Sprintf("%+v %v", err, err), "CANARY") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// What looks like a reference elsewhere is a text here.
	for _, text := range []string{"$HOME", "$(id)", "%s%n", "env://HOME", "file:///etc/passwd"} {
		d := patients()
		d.Context["x"] = text
		c, err := datasets.Compile(d, "ssn")
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.AppendContext(nil, [][]byte{[]byte("7")})
		if err != nil || !bytes.Contains(got, []byte(text)) {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

func TestContextOfARowRefuses(t *testing.T) {
	c, err := datasets.Compile(patients(), "ssn")
	if err != nil {
		t.Fatal(err)
	}
	for name, pk := range map[string][][]byte{
		"not UTF-8": {{0xff}}, "too long": {bytes.Repeat([]byte("x"), envelope.MaxContext)}, "nearly too long": {bytes.Repeat([]byte("x"), envelope.MaxContext-10)},
	} {
		if _, err := c.AppendContext(nil, pk); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "pk" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.AppendContext(nil, nil); err == nil {
		t.Error("a row without a key has a context")
	}
	out, err := c.AppendContext([]byte("kept"), [][]byte{[]byte("7")})
	if err != nil || !bytes.HasPrefix(out, []byte("kept")) {
		t.Errorf("appending: %q, %v", out, err)
	}
}

func TestContextAllocatesNothing(t *testing.T) {
	c, err := datasets.Compile(patients(), "ssn")
	if err != nil {
		t.Fatal(err)
	}
	dst, pk := make([]byte, 0, 256), [][]byte{[]byte("123456")}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.AppendContext(dst[:0], pk) }); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}
