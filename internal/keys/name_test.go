package keys

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"pgregory.net/rapid"
)

func TestValidateName(t *testing.T) {
	for _, name := range []string{"phi", "a", "0", "trading_data", "user_pii", "db.example-1", "a.b.c", "x--y", strings.Repeat("a", 128)} {
		if err := ValidateName(name); err != nil {
			t.Errorf("%q refused: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "../x", "a%b", "A", "Phi", strings.Repeat("a", 129), strings.Repeat("a", 300), `x"; drop table`, "x'; drop table keys; --",
		".", "..", "a..b", ".a", "-a", "_a", "a/b", `a\b`, "a b", " a", "a ", "a\n", "a\x00", "a\tb", "a*", "*", "a?", "a[b]", "a;b", "a:b", "a@b",
		"a,b", "é", "pһi", "рhi", "ｐhi", "ph\u200bi", "phı", "ﬁ", "\xff", "%2e%2e", "$(id)",
	} {
		err := ValidateName(name)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "name" || fault.NextOf(err) == "" {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if len(name) > 3 && strings.Contains(err.Error(), name) {
			t.Errorf("the error repeats the name: %v", err)
		}
	}
}

// A name that reads as something of the system's own is refused at birth.
func TestAdvisory_CVE_2026_55775(t *testing.T) {
	for name := range reservedNames {
		for _, variant := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], " " + name, name + " ", name + "/", "./" + name, name + "\u200b"} {
			if ValidateName(variant) == nil {
				t.Errorf("%q accepted", variant)
			}
		}
	}
	for _, lookAlike := range []string{"rооt", "аdmin", "ѕystem", "ｒｏｏｔ", "ⓡoot", ".", "..", ""} {
		if ValidateName(lookAlike) == nil {
			t.Errorf("%q accepted", lookAlike)
		}
	}
}

func TestNamesAreOneSafeSegment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.String().Draw(rt, "name")
		if ValidateName(name) == nil && (strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" || strings.Contains(name, "..")) {
			rt.Fatalf("%q accepted", name)
		}
	})
}

func TestNewKeyDefaultsAndRefusals(t *testing.T) {
	k, err := NewKey(testID, Spec{Name: "phi"}, testNow)
	if err != nil || k.Purpose != PurposeData || k.Algorithm != AES256GCM || k.Suite != envelope.SuiteStandard || len(k.Versions) != 0 || k.Created != stamp(testNow) {
		t.Errorf("defaults: %+v, %v", k, err)
	}
	k, err = NewKey(testID, Spec{Name: "old", Algorithm: AES256CBCHMAC}, testNow)
	if err != nil || k.Suite != envelope.SuiteCBC {
		t.Errorf("the suite of a CBC key: %v, %v", k.Suite, err)
	}
	for field, spec := range map[string]Spec{
		"name":          {Name: "../x"},
		"purpose":       {Name: "x", Purpose: "PHI"},
		"algorithm":     {Name: "x", Algorithm: "rot13"},
		"suite":         {Name: "x", Suite: envelope.SuiteCBC},
		"period":        {Name: "x", Cryptoperiod: Cryptoperiod{Period: 1}},
		"maxOperations": {Name: "x", Cryptoperiod: Cryptoperiod{MaxOperations: 1 << 63}},
		"warn":          {Name: "x", Cryptoperiod: Cryptoperiod{Period: day, Warn: 2 * day}},
	} {
		if _, err := NewKey(testID, spec, testNow); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := NewKey(envelope.KeyID{}, Spec{Name: "x"}, testNow); err == nil {
		t.Error("a zero id was accepted")
	}
	for _, p := range []Purpose{"9x", "x_y", "x.y", Purpose(strings.Repeat("x", 33)), "phí", "x ", "-x"} {
		if p.Validate() == nil {
			t.Errorf("purpose %q accepted", p)
		}
	}
}

// Every combination of the options of a new key is either a key or a named refusal: never a panic, never an error that
// blames keyturn.
func TestAdvisory_CVE_2026_55776(t *testing.T) {
	for _, purpose := range []Purpose{"", "phi", "own-kind", "BAD"} {
		for _, algorithm := range []Algorithm{"", AES256GCM, AES256CBCHMAC, "none"} {
			for suite := range envelope.Suite(8) {
				for _, c := range []Cryptoperiod{{}, {Period: 90 * day}, {Period: -1}, {MaxOperations: 1}, {MaxBytes: 1<<63 - 1}, {MaxBytes: 1 << 63}} {
					spec := Spec{Name: "matrix", Purpose: purpose, Algorithm: algorithm, Suite: suite, Cryptoperiod: c}
					k, err := NewKey(testID, spec, testNow)
					if err != nil {
						if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) == "" {
							t.Errorf("%+v: %v", spec, err)
						}
						continue
					}
					if _, err := k.Rotate(testNow, "", "", 0); err != nil {
						t.Errorf("%+v: rotating: %v", spec, err)
					}
				}
			}
		}
	}
}
