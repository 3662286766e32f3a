package foreign_test

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/foreign"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// now is when the tests look at values.
var now = time.Date(2026, 1, 15, 10, 30, 0, 0, time.UTC)

// unverified is src, with what must be said before values are opened that nothing verifies.
func unverified(src foreign.Source) foreign.Source {
	src.Unauthenticated = true
	if src.Expect == "" {
		src.Expect = "utf8"
	}
	return src
}

func opener(t testing.TB, src foreign.Source, candidates ...string) *foreign.Opener {
	t.Helper()
	var keys []*material.Bytes
	for _, c := range candidates {
		keys = append(keys, material.New([]byte(c)))
	}
	o, err := foreign.New(src, keys)
	if err != nil {
		t.Fatalf("%+v: %v", src, err)
	}
	t.Cleanup(o.Destroy)
	return o
}

// opens wants a value to open to want under candidate which.
func opens(t *testing.T, o *foreign.Opener, value string, text bool, want string, which int) {
	t.Helper()
	got, n, v := o.Open([]byte("before"), []byte(value), text, now)
	if v != foreign.Opened || string(got) != "before"+want || n != which {
		t.Errorf("%.80q: verdict %d (%s), %d bytes, candidate %d; want %d bytes of candidate %d", value, v, v.Reason(), len(got)-6, n, len(want), which)
	}
}

// refuses wants a verdict, and nothing in the buffer.
func refuses(t *testing.T, o *foreign.Opener, value string, text bool, want foreign.Verdict) {
	t.Helper()
	got, _, v := o.Open([]byte("before"), []byte(value), text, now)
	if v != want || string(got) != "before" {
		t.Errorf("%.80q: verdict %d (%s), %q; want %d (%s)", value, v, v.Reason(), got, want, want.Reason())
	}
}

func unbase64(t testing.TB, text string) string {
	t.Helper()
	b, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
