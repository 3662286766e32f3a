package material_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/material"
)

const canary = "canary-0123456789abcdef-material"

// P3: whatever prints, formats, marshals or logs material shows "[redacted]".
func TestNothingPrintsMaterial(t *testing.T) {
	type holder struct {
		Name    string
		Shown   *material.Bytes
		ByValue material.Bytes
		hidden  *material.Bytes
		inside  material.Bytes
	}
	m := material.New([]byte(canary))
	h := holder{"x", m, *m, m, *m}
	values := map[string]any{
		"pointer": m, "value": *m, "struct": h, "pointer to struct": &h, "slice": []*material.Bytes{m}, "slice of values": []material.Bytes{*m},
		"map": map[string]*material.Bytes{"k": m}, "map of values": map[string]material.Bytes{"k": *m}, "any": []any{m, *m},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c", "%U", "%p", "% x", "%020s"} {
			checkHidden(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		checkHidden(t, name+" Sprint", fmt.Sprint(v))
		if j, err := json.Marshal(v); err == nil {
			checkHidden(t, name+" JSON", string(j))
		}
		if x, err := xml.Marshal(v); err == nil {
			checkHidden(t, name+" XML", string(x))
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		checkHidden(t, name+" slog", log.String())
	}
	if got := fmt.Sprintf("%v %s %x %#v", m, *m, m, m); got != strings.TrimSpace(strings.Repeat(material.Redacted+" ", 4)) {
		t.Errorf("printed as %q", got)
	}
	if j, err := json.Marshal(h); err != nil || !strings.Contains(string(j), `"Shown":"[redacted]"`) {
		t.Errorf("marshalled as %s, %v", j, err)
	}
}

func checkHidden(t *testing.T, where, text string) {
	t.Helper()
	forms := []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary), fmt.Sprintf("%d", []byte(canary)),
		strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]"), fmt.Sprintf("%#v", []byte(canary)[:8])[7:20], "Y2FuYXJ5"}
	for _, form := range forms {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the content: %s", where, text)
		}
	}
}

func TestDestroyZeroesAndIsFinal(t *testing.T) {
	backing := append(make([]byte, 0, 64), canary...)
	m := material.New(backing)
	alias, other := *m, m.Clone()
	m.Destroy()
	m.Destroy()
	if !bytes.Equal(backing[:cap(backing)], make([]byte, cap(backing))) {
		t.Error("destroyed bytes are still there")
	}
	if m.Len() != 0 || alias.Len() != 0 || m.Equal(m) || m.Equal(other) || other.Equal(&alias) {
		t.Error("destroyed bytes have a length or equal something")
	}
	if string(other.Expose()) != canary {
		t.Error("destroying one destroyed its clone")
	}
	var zero material.Bytes
	var none *material.Bytes
	none.Destroy()
	zero.Destroy()
	for name, f := range map[string]func(){
		"exposing":          func() { m.Expose() },
		"cloning":           func() { m.Clone() },
		"exposing an alias": func() { alias.Expose() },
		"exposing zero":     func() { zero.Expose() },
		"exposing nil":      func() { none.Expose() },
	} {
		if text := panicText(f); !strings.Contains(text, "destroyed") {
			t.Errorf("%s destroyed bytes: %q", name, text)
		}
	}
}

func TestEqual(t *testing.T) {
	a, b := material.New([]byte("abc")), material.New([]byte("abc"))
	empty := material.New(nil)
	for _, c := range []struct {
		name string
		x, y *material.Bytes
		want bool
	}{
		{"itself", a, a, true}, {"a copy", a, b, true}, {"one byte off", a, material.New([]byte("abd")), false},
		{"shorter", a, material.New([]byte("ab")), false}, {"empty ones", empty, material.New([]byte{}), true},
		{"nil", a, nil, false}, {"two nils", nil, nil, false},
	} {
		if c.x.Equal(c.y) != c.want {
			t.Errorf("%s: not %v", c.name, c.want)
		}
	}
}

func TestRandom(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		m := material.Random(32)
		if m.Len() != 32 || seen[string(m.Expose())] {
			t.Fatal("random bytes of a wrong length, or seen before")
		}
		seen[string(m.Expose())] = true
	}
}

func TestSecretlyRuns(t *testing.T) {
	var ran bool
	material.Secretly(func() { ran = true })
	if !ran {
		t.Error("the function didn't run")
	}
}

func panicText(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return "no panic"
}
