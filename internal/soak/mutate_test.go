package soak

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
)

// TestCampaignMutateCiphertexts sends ten thousand mutated ciphertexts through the whole product (flipped, cut, extended,
// spliced from two, another key's, another version's header): every one is refused, with one of two codes, and the
// good one still opens afterwards. FAULTS row 8.
func TestCampaignMutateCiphertexts(t *testing.T) {
	rng, seed := Seed(t)
	budget := NewBudget(t, 100) // batches of 100
	k := New(t)
	c, err := embedded.Open(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bound := map[string]string{"patient": "17"}
	seal := func(key, text string) []byte {
		out, err := c.Encrypt(t.Context(), key, api.EncryptRequest{Plaintext: []byte(text), Context: bound})
		if err != nil {
			t.Fatal(err)
		}
		return []byte(out.Ciphertext)
	}
	if _, err := c.CreateKey(t.Context(), api.CreateKeyRequest{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	good, second, foreign := seal("phi", "the value"), seal("phi", "another value of another length"), seal("other", "the value")
	tried := 0
	for i := 0; budget.More(i); i++ {
		items := make([]api.DecryptRequest, 100)
		for j := range items {
			items[j] = api.DecryptRequest{Ciphertext: string(mutate(rng, good, second, foreign)), Context: bound}
		}
		out, err := c.DecryptBatch(t.Context(), "phi", items)
		if err != nil {
			t.Fatal(err)
		}
		for j, item := range out {
			if item.Error == nil {
				t.Fatalf("seed %d: a mutated ciphertext opened: %q", seed, items[j].Ciphertext)
			}
			if item.Error.Code != api.CodeIntegrity && item.Error.Code != api.CodeInvalid {
				t.Fatalf("seed %d: a mutated ciphertext was refused with %s: %q", seed, item.Error.Code, items[j].Ciphertext)
			}
		}
		tried += len(items)
	}
	if out, err := c.Decrypt(t.Context(), "phi", api.DecryptRequest{Ciphertext: string(good), Context: bound}); err != nil || string(out.Plaintext) != "the value" {
		t.Fatalf("the untouched ciphertext: %v", err)
	}
	Report("mutate-ciphertexts", seed, "%d mutated ciphertexts through the API: all refused", tried)
}

// mutate gives something that is not good: never equal to it, never to second.
func mutate(rng *rand.Rand, good, second, foreign []byte) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	out := slices.Clone(good)
	at := rng.IntN(len(out))
	switch rng.IntN(7) {
	case 0, 1: // another character
		for out[at] == good[at] {
			out[at] = alphabet[rng.IntN(len(alphabet))]
		}
	case 2: // cut
		out = out[:at]
	case 3: // extended
		for range 1 + rng.IntN(8) {
			out = append(out, alphabet[rng.IntN(len(alphabet))])
		}
	case 4: // spliced
		at = 60 + rng.IntN(100)
		out = append(slices.Clone(good[:at]), second[at:]...)
	case 5: // another key's
		out = slices.Clone(foreign)
	case 6: // a foreign header on our body
		out = append(slices.Clone(foreign[:36]), good[36:]...)
	}
	return out
}
