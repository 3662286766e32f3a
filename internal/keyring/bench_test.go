package keyring

import (
	"testing"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/material"
)

func envelopeKey(t testing.TB) *envelope.Key {
	t.Helper()
	k, err := envelope.NewKey(envelope.NewKeyID(), 1, envelope.SuiteStandard, "phi", material.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What re-encryption pays for a value in memory (S5): one opening and one sealing.
func BenchmarkRewrap(b *testing.B) {
	from, to := envelopeKey(b), envelopeKey(b)
	blob, err := from.Seal(nil, make([]byte, 64), nil)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Rewrap(dst, from, to, blob, nil); err != nil {
			b.Fatal(err)
		}
	}
}
