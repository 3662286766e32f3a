package keyring_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
)

// What every request pays before its cryptography (S1): both caches hit.
func BenchmarkLookupAndVersion(b *testing.B) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(b, src)
	keyringtest.NewKey(b, ring, src, "phi")
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			k, err := ring.Lookup(ctx, "phi")
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := ring.Version(ctx, k, 1); err != nil {
				b.Error(err)
			}
		}
	})
}
