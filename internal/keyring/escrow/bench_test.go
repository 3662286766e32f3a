package escrow_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
)

// BenchmarkAttach is what proving the escrow key costs, once a process and set, in a store with 10,000 key-encryption keys (one has
// five, and five more with each rotation of them).
func BenchmarkAttach(b *testing.B) {
	src, master := &keyringtest.Source{}, keyringtest.Master(b, "one")
	r := keyringtest.NewRing(b, src, master)
	for range 10_000/len(keys.KEKPurposes()) - 1 {
		made, err := r.NewKEKs(b.Context(), keys.KEKPurposes())
		if err != nil {
			b.Fatal(err)
		}
		src.PutKEKs(made...)
	}
	if err := r.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	k := open(b)
	set, err := r.NewEscrow(b.Context(), k, 2, 3)
	if err != nil {
		b.Fatal(err)
	}
	wrapped, err := keyringtest.Rewrap(b, r, src, master, k)
	if err != nil {
		b.Fatal(err)
	}
	src.PutKEKs(wrapped...)
	for b.Loop() {
		k.Detach(nil)
		if err := r.Attach(b.Context(), k, set.Set, set.Sealed); err != nil {
			b.Fatal(err)
		}
	}
}
