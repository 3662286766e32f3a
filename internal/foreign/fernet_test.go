package foreign_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	fernet "github.com/fernet/fernet-go"

	"github.com/keyturn/keyturn/internal/foreign"
)

var tokens = foreign.Source{Format: "fernet"}

// vector is one of the specification's.
type vector struct {
	Desc, Token, Src, Secret string
	Now                      time.Time
	TTL                      int `json:"ttl_sec"`
}

func vectors(t *testing.T, name string) (out []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/fernet-" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil || len(out) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(out), err)
	}
	return out
}

func TestFernetSpecification(t *testing.T) {
	for _, name := range []string{"generate", "verify"} {
		for _, v := range vectors(t, name) {
			got, _, verdict := opener(t, tokens, unbase64(t, v.Secret)).Open(nil, []byte(v.Token), true, v.Now)
			if verdict != foreign.Opened || string(got) != v.Src {
				t.Errorf("%s: %q, %s", name, got, verdict.Reason())
			}
		}
	}
	want := map[string]foreign.Verdict{
		"incorrect mac": foreign.NoKey, "too short": foreign.Malformed, "invalid base64": foreign.NotForeign,
		"payload size not multiple of block size": foreign.Malformed, "payload padding error": foreign.NoKey,
		"far-future TS (unacceptable clock skew)": foreign.Future, "expired TTL": foreign.Opened, // a column keeps longer than a session
		"incorrect IV (causes padding error)": foreign.NoKey, "very short payload size": foreign.Malformed, "super short payload size": foreign.NotForeign,
	}
	for _, v := range vectors(t, "invalid") {
		_, _, verdict := opener(t, tokens, unbase64(t, v.Secret)).Open(nil, []byte(v.Token), true, v.Now)
		if verdict != want[v.Desc] {
			t.Errorf("%s: verdict %d (%s)", v.Desc, verdict, verdict.Reason())
		}
	}
}

// token is what somebody else's library makes.
func token(t testing.TB, plain string) (text, key string) {
	t.Helper()
	var k fernet.Key
	if err := k.Generate(); err != nil {
		t.Fatal(err)
	}
	made, err := fernet.EncryptAndSign([]byte(plain), &k)
	if err != nil {
		t.Fatal(err)
	}
	return string(made), string(k[:])
}

func TestFernetOracle(t *testing.T) {
	now := time.Now()
	for _, plain := range []string{"", "078-05-1120", strings.Repeat("x", 15), strings.Repeat("x", 16), strings.Repeat("long ", 10_000)} {
		text, key := token(t, plain)
		_, other := token(t, "")
		o := opener(t, tokens, other, key)
		for form, value := range map[string]string{
			"token": text, "without padding": strings.TrimRight(text, "="), "in a fixed-width column": text + "   ",
		} {
			got, which, v := o.Open(nil, []byte(value), true, now)
			if v != foreign.Opened || which != 1 || string(got) != plain {
				t.Errorf("%s: %s, candidate %d", form, v.Reason(), which)
			}
			if _, _, v := o.Open(nil, []byte(value), false, now); v != foreign.Opened {
				t.Errorf("%s in a column of bytes: %s", form, v.Reason())
			}
		}
		if _, _, v := o.Open(nil, []byte(unbase64(t, text)), false, now); v != foreign.Opened {
			t.Errorf("the token's bytes: %s", v.Reason())
		}
		if _, _, v := opener(t, tokens, other).Open(nil, []byte(text), true, now); v != foreign.NoKey {
			t.Errorf("another key: %s", v.Reason())
		}
	}
}

func TestFernetFromTheFuture(t *testing.T) {
	key := strings.Repeat("k", 16) + strings.Repeat("e", 16)
	made, _ := token(t, "soon")
	at := func(when int64) string { // the token with another time, signed again
		raw := []byte(unbase64(t, made))
		binary.BigEndian.PutUint64(raw[1:], uint64(when))
		mac := hmac.New(sha256.New, []byte(key[:16]))
		mac.Write(raw[:len(raw)-32])
		return base64.URLEncoding.EncodeToString(append(raw[:len(raw)-32], mac.Sum(nil)...))
	}
	o := opener(t, tokens, key)
	// Encrypted under another key, so that what isn't from the future is refused as unreadable: the time is looked at first.
	for when, want := range map[int64]foreign.Verdict{
		now.Unix() - 1e9: foreign.NoKey, now.Unix(): foreign.NoKey, now.Unix() + 60: foreign.NoKey,
		now.Unix() + 61: foreign.Future, 1<<32 - 1: foreign.Future,
	} {
		refuses(t, o, at(when), true, want)
	}
	refuses(t, o, at(-1), true, foreign.Future)
	_, _, v := o.Open(nil, []byte(at(0)), true, time.Unix(-1000, 0))
	if v != foreign.Future {
		t.Errorf("looked at before 1970: %s", v.Reason())
	}
}

func TestFernetCutShort(t *testing.T) {
	text, key := token(t, "a plaintext of more than one block of the cipher")
	o := opener(t, tokens, key)
	later := time.Now()
	for n := range len(strings.TrimRight(text, "=")) {
		_, _, v := o.Open(nil, []byte(text[:n]), true, later)
		if v != foreign.NoKey && v != foreign.Malformed && (n >= 5 || v != foreign.NotForeign) {
			t.Fatalf("cut to %d characters: %d %s", n, v, v.Reason())
		}
	}
	for _, longer := range []string{text + "A", text + text, "b'" + text + "'", text[:40] + "\n" + text[40:], text[:40] + "+" + text[41:]} {
		if _, _, v := o.Open(nil, []byte(longer), true, later); v != foreign.Malformed {
			t.Errorf("%.20q…: %d %s", longer, v, v.Reason())
		}
	}
}

func TestFernetEveryBitCounts(t *testing.T) {
	text, key := token(t, "078-05-1120")
	raw := []byte(unbase64(t, text))
	o := opener(t, tokens, key)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if _, _, v := o.Open(nil, raw, false, time.Now()); v == foreign.Opened {
				t.Fatalf("it opens with bit %d of byte %d turned", bit, i)
			}
			raw[i] ^= 1 << bit
		}
	}
}

func TestPlaintextIsNoToken(t *testing.T) {
	_, key := token(t, "")
	o := opener(t, tokens, key)
	for _, plain := range []string{"", "078-05-1120", "gAAA", "\x80", "=", "\\x80", "kt1.", strings.Repeat("A", 100)} {
		refuses(t, o, plain, true, foreign.NotForeign)
	}
	refuses(t, o, "\x81\x00\x00\x00\x00", false, foreign.NotForeign)
}
