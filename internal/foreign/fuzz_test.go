package foreign_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/foreign"
)

// fuzz feeds values to an opener. What must hold of every one: no panic, a verdict, nothing in the buffer unless it opened,
// the same answer twice, and a plaintext no longer than its value (a compressed one aside).
func fuzz(f *testing.F, expanding bool, openers ...*foreign.Opener) {
	f.Add([]byte(""), true)
	f.Add([]byte("078-05-1120"), false)
	f.Fuzz(func(t *testing.T, value []byte, text bool) {
		for _, o := range openers {
			got, which, v := o.Open([]byte("before"), value, text, now)
			if v != foreign.Opened && (v.Reason() == "" || string(got) != "before") || which < 0 || which >= o.Candidates() {
				t.Fatalf("verdict %d, candidate %d, %d bytes", v, which, len(got))
			}
			if string(got[:6]) != "before" || !expanding && len(got)-6 > len(value) || len(got)-6 > foreign.MaxValue {
				t.Fatalf("%d bytes of %d", len(got)-6, len(value))
			}
			if again, _, w := o.Open([]byte("before"), value, text, now); w != v || string(again) != string(got) {
				t.Fatalf("verdict %d, then %d", v, w)
			}
		}
	})
}

func FuzzFernet(f *testing.F) {
	v, key := token(f, "078-05-1120")
	f.Add([]byte(v), true)
	f.Add([]byte(unbase64(f, v)), false)
	f.Add([]byte("gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=="), true)
	fuzz(f, false, opener(f, tokens, key, unbase64(f, "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=")))
}

func FuzzCBC(f *testing.F) {
	value := encrypted(f, key32, "an IV of sixteen", "078-05-1120")
	f.Add([]byte(value), false)
	f.Add([]byte(signed(mac32, value)), false)
	fuzz(f, false, opener(f, unverified(foreign.Source{Format: "aes-256-cbc"}), key32, other32),
		opener(f, foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}, key32+mac32),
		opener(f, unverified(foreign.Source{Format: "pgcrypto", Layout: "raw", Expect: "any"}), key32, "short"))
}

func FuzzOpenSSL(f *testing.F) {
	f.Add([]byte(frozen["openssl"]), true)
	f.Add([]byte("Salted__saltsaltan IV of sixteen"), false)
	fuzz(f, false, opener(f, unverified(foreign.Source{Format: "aes-256-cbc", Layout: "openssl", Iterations: 1}), "pass", "word"))
}

func FuzzPGP(f *testing.F) {
	for _, value := range frozen {
		f.Add([]byte(value), true)
	}
	fuzz(f, true, opener(f, unverified(foreign.Source{Format: "pgcrypto"}), "pass", "word"), opener(f, pgp, "pass"))
}
