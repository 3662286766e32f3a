package keyturn

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"testing"
)

// BenchmarkEnvelope measures S4: what the SDK costs beside the bare primitives that one message can't do without, in the
// same run. Those are: 32 random bytes of salt, SHA-256 of what is bound, one keyed HMAC-SHA-512, the set-up of
// AES-256-GCM, sealing or opening, and base64 of the result.
//
//	go test -run '^$' -bench Envelope -benchmem -count 5 .
func BenchmarkEnvelope(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"64B", 64}, {"1KiB", 1024}} {
		plain := make([]byte, size.n)
		b.Run("seal/"+size.name+"/sdk", func(b *testing.B) { benchSeal(b, plain) })
		b.Run("seal/"+size.name+"/primitives", func(b *testing.B) {
			p := newPrimitives(b)
			for b.Loop() {
				p.seal(plain)
			}
		})
		b.Run("open/"+size.name+"/sdk", func(b *testing.B) { benchOpen(b, plain) })
		b.Run("open/"+size.name+"/primitives", func(b *testing.B) {
			p := newPrimitives(b)
			text := p.seal(plain)
			for b.Loop() {
				p.open(b, text)
			}
		})
	}
}

func benchSeal(b *testing.B, plain []byte) {
	e := envelopeOf(b, newFakeKeys(b), EnvelopeConfig{MaxMessages: 1 << 62})
	ctx := context.Background()
	var dst []byte
	for b.Loop() {
		var err error
		if dst, err = e.AppendSeal(ctx, dst[:0], plain, row17); err != nil {
			b.Fatal(err)
		}
	}
}

func benchOpen(b *testing.B, plain []byte) {
	e := envelopeOf(b, newFakeKeys(b), EnvelopeConfig{})
	ctx := context.Background()
	text, err := e.Seal(ctx, plain, row17)
	if err != nil {
		b.Fatal(err)
	}
	var dst []byte
	for b.Loop() {
		if dst, err = e.AppendOpen(ctx, dst[:0], text, row17); err != nil {
			b.Fatal(err)
		}
	}
}

// primitives does with package crypto alone what one message needs, into buffers that are kept.
type primitives struct {
	mac        hash.Hash
	aad        []byte
	info, blob []byte
	text       []byte
	plain      []byte
	okm        [64]byte
}

func newPrimitives(tb testing.TB) *primitives {
	tb.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	aad := make([]byte, 24+33) // header and the canonical form of row17
	return &primitives{mac: hmac.New(sha512.New, key), aad: aad}
}

func (p *primitives) gcm(salt []byte) cipher.AEAD {
	digest := sha256.Sum256(p.aad)
	p.info = append(append(append(p.info[:0], "keyturn/v1/aead\x00sdk-envelope\x00"...), salt...), digest[:]...)
	p.mac.Reset()
	p.mac.Write(append(p.info, 1))
	p.mac.Sum(p.okm[:0])
	block, err := aes.NewCipher(p.okm[:32])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (p *primitives) seal(plain []byte) []byte {
	salt := p.blob[:0]
	salt = append(salt, make([]byte, 32)...)
	rand.Read(salt)
	aead := p.gcm(salt)
	p.blob = append(salt, p.okm[32:]...)
	p.blob = aead.Seal(p.blob, nil, plain, p.aad)
	p.text = base64.RawURLEncoding.AppendEncode(p.text[:0], p.blob)
	return p.text
}

func (p *primitives) open(tb testing.TB, text []byte) {
	var err error
	if p.blob, err = base64.RawURLEncoding.AppendDecode(p.blob[:0], text); err != nil {
		tb.Fatal(err)
	}
	aead := p.gcm(p.blob[:32])
	if !hmac.Equal(p.blob[32:64], p.okm[32:]) {
		tb.Fatal("not committed")
	}
	if p.plain, err = aead.Open(p.plain[:0], nil, p.blob[64:], p.aad); err != nil {
		tb.Fatal(err)
	}
}
