package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"testing"
)

// The benchmarks of goals S4 and S5: Seal and Open beside Primitives, which call the same primitives on the same bytes
// with nothing around them: random salt, SHA-256 of header and context, one keyed HMAC block, AES-256-GCM set up and run.
// The goal is a ratio of at most 1.3 in one run.

var benchSizes = []int{64, 1024}

func BenchmarkSeal(b *testing.B)       { benchEach(b, benchSeal) }
func BenchmarkOpen(b *testing.B)       { benchEach(b, benchOpen) }
func BenchmarkPrimitives(b *testing.B) { benchEach(b, benchPrimitives) }

func benchEach(b *testing.B, bench func(b *testing.B, n int)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) { bench(b, n) })
	}
}

func benchSeal(b *testing.B, n int) {
	k, plain, ctx := testKey(b, SuiteStandard), make([]byte, n), testContext(b, "patient", "17")
	dst := make([]byte, 0, SuiteStandard.SealedLen(n))
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Seal(dst, plain, ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func benchOpen(b *testing.B, n int) {
	k, ctx := testKey(b, SuiteStandard), testContext(b, "patient", "17")
	blob, dst := mustSeal(b, k, make([]byte, n), ctx), make([]byte, 0, n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(dst, blob, ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// primitives is what a message can't do without, by hand.
type primitives struct {
	mac             hash.Hash
	aad, info, salt []byte
	okm             [64]byte
}

func newPrimitives(ctx Context) *primitives {
	p := &primitives{mac: hmac.New(sha512.New, testMaterial), salt: make([]byte, 32), info: make([]byte, 86)}
	p.aad = append(Header{Format, SuiteStandard, testID, 7}.append(nil), ctx...)
	return p
}

func (p *primitives) seal(dst, plain []byte) []byte {
	rand.Read(p.salt)
	digest := sha256.Sum256(p.aad)
	copy(p.info[21:53], p.salt)
	copy(p.info[53:85], digest[:])
	p.mac.Reset()
	p.mac.Write(p.info)
	p.mac.Sum(p.okm[:0])
	block, _ := aes.NewCipher(p.okm[:32])
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	return aead.Seal(dst, nil, plain, p.aad)
}

func benchPrimitives(b *testing.B, n int) {
	p, plain, dst := newPrimitives(testContext(b, "patient", "17")), make([]byte, n), make([]byte, 0, n+28)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		p.seal(dst, plain)
	}
}

func BenchmarkContext(b *testing.B) {
	pairs := []Pair{{"column", "ssn"}, {"id", "17"}, {"table", "patients"}, {"tenant", "acme"}}
	dst := make([]byte, 0, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendContext(dst, pairs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealParallel(b *testing.B) {
	k, plain, ctx := testKey(b, SuiteStandard), make([]byte, 64), testContext(b, "patient", "17")
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, SuiteStandard.SealedLen(64))
		for pb.Next() {
			if _, err := k.Seal(dst, plain, ctx); err != nil {
				b.Error(err)
			}
		}
	})
}
