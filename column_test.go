package keyturn

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
)

func columnOf[T Text](t *testing.T) *Column[T] {
	return NewColumn[T](envelopeOf(t, newFakeKeys(t), EnvelopeConfig{}), map[string]string{"table": "patients", "column": "ssn"})
}

func TestColumnRoundTrip(t *testing.T) {
	ctx := context.Background()
	type name string // a program's own type
	text := columnOf[name](t)
	for _, plain := range []name{"", "900-05-1120", "Zoë 北京"} {
		v, err := text.Row(ctx, "id", "17").Of(plain).Value()
		if err != nil {
			t.Fatal(err)
		}
		sealed := v.(string)
		for _, src := range []any{sealed, []byte(sealed)} { // drivers give either
			got := text.Row(ctx, "id", "17").Empty()
			if err := got.Scan(src); err != nil || !got.Valid || got.Plain != plain {
				t.Errorf("%q from a %T: %q, %v, %v", plain, src, got.Plain, got.Valid, err)
			}
		}
	}
	blob := columnOf[[]byte](t)
	v, err := blob.Row(ctx, "id", "17").Of([]byte{0, 255}).Value()
	if err != nil {
		t.Fatal(err)
	}
	got := blob.Row(ctx, "id", "17").Empty()
	if err := got.Scan(v); err != nil || string(got.Plain) != "\x00\xff" {
		t.Errorf("bytes: %x, %v", got.Plain, err)
	}
}

func TestColumnNull(t *testing.T) {
	row := columnOf[string](t).Row(context.Background(), "id", "17")
	if v, err := row.Null().Value(); v != nil || err != nil {
		t.Errorf("writing NULL: %v, %v", v, err)
	}
	got := row.Of("before")
	if err := got.Scan(nil); err != nil || got.Valid || got.Plain != "" {
		t.Errorf("reading NULL: %q, %v, %v", got.Plain, got.Valid, err)
	}
}

// TestColumnRefusals: whatever can't be read leaves nothing behind in the value.
func TestColumnRefusals(t *testing.T) {
	ctx := context.Background()
	c := columnOf[string](t)
	v, err := c.Row(ctx, "id", "17").Of("900-05-1120").Value()
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		into *Encrypted[string]
		src  any
		code api.Code
	}{
		{"another row", c.Row(ctx, "id", "18").Of("before"), v, api.CodeIntegrity},
		{"no row", c.Row(ctx).Of("before"), v, api.CodeIntegrity},
		{"plaintext in the column", c.Row(ctx, "id", "17").Of("before"), "900-05-1120", api.CodeIntegrity},
		{"a number", c.Row(ctx, "id", "17").Of("before"), int64(1), api.CodeInvalid},
		{"odd pairs", c.Row(ctx, "id").Of("before"), v, api.CodeInvalid},
		{"a name twice", c.Row(ctx, "table", "x").Of("before"), v, api.CodeInvalid},
		{"no column", &Encrypted[string]{Plain: "before", Valid: true}, v, api.CodeInvalid},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.into.Scan(tc.src)
			if CodeOf(err) != tc.code || tc.into.Valid || tc.into.Plain != "" {
				t.Errorf("got %v, left %q, %v", err, tc.into.Plain, tc.into.Valid)
			}
			if err != nil && strings.Contains(err.Error(), "900-05") {
				t.Errorf("the error holds the value: %v", err)
			}
		})
	}
	for name, v := range map[string]*Encrypted[string]{"odd pairs": c.Row(ctx, "id").Of("x"), "no column": {Plain: "x", Valid: true}} {
		if _, err := v.Value(); CodeOf(err) != api.CodeInvalid {
			t.Errorf("writing with %s: %v", name, err)
		}
	}
}

// TestColumnNeverPrints: promise P3.
func TestColumnNeverPrints(t *testing.T) {
	v := columnOf[string](t).Row(context.Background()).Of("canary")
	wrapped := struct{ SSN *Encrypted[string] }{v}
	js, err := json.Marshal(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		v.String(), string(js), fmt.Sprint(v), fmt.Sprint(*v),
		fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v), fmt.Sprintf("%+v %x", *v, *v),
	} {
		if strings.Contains(got, "canary") || strings.Contains(got, "63616e617279") {
			t.Errorf("printed %s", got)
		}
	}
}

// TestRemoteSealer: the server's own form, through the client.
func TestRemoteSealer(t *testing.T) {
	tr := ok(`{"ciphertext":"kt1.abc","version":1,"plaintext":"eA=="}`)
	s := NewClient(tr).Sealer("phi")
	if text, err := s.Seal(context.Background(), []byte("x"), row17); err != nil || text != "kt1.abc" {
		t.Errorf("sealing: %q, %v", text, err)
	}
	if plain, err := s.Open(context.Background(), "kt1.abc", row17); err != nil || string(plain) != "x" {
		t.Errorf("opening: %q, %v", plain, err)
	}
	if tr.requests[0].URL.Path != "/v1/keys/phi/encrypt" || tr.requests[1].URL.Path != "/v1/keys/phi/decrypt" || !strings.Contains(tr.bodies[1], `"id":"17"`) {
		t.Errorf("sent %v and %v: %v", tr.requests[0].URL, tr.requests[1].URL, tr.bodies)
	}
}
