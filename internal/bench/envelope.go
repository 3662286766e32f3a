package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"testing"

	"github.com/keyturn/keyturn"
)

// primitives calls, by hand and with nothing around them, what sealing one message needs: a salt, the digest of header
// and context, one keyed HMAC-SHA-512 block, the set-up of AES-256-GCM with a random nonce, one seal, base64.
type primitives struct {
	mac       hash.Hash
	okm       []byte
	aad, blob []byte
	text      []byte
}

func newPrimitives() *primitives {
	key := make([]byte, 32)
	rand.Read(key)
	return &primitives{mac: hmac.New(sha512.New, key), aad: make([]byte, 40)}
}

func (p *primitives) seal(plaintext []byte) error {
	var salt [32]byte
	rand.Read(salt[:])
	digest := sha256.Sum256(p.aad)
	p.mac.Reset()
	p.mac.Write(salt[:])
	p.mac.Write(digest[:])
	p.mac.Write([]byte{1})
	p.okm = p.mac.Sum(p.okm[:0])
	block, err := aes.NewCipher(p.okm[:32])
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	p.blob = append(append(append(p.blob[:0], p.aad[:24]...), salt[:]...), p.okm[32:]...)
	p.blob = aead.Seal(p.blob, nil, plaintext, p.aad)
	p.text = base64.RawURLEncoding.AppendEncode(p.text[:0], p.blob)
	return nil
}

func benchEnvelope(e *env) ([]row, error) {
	p, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	client, err := keyturn.Dial("http://"+p.addr, keyturn.WithToken(token))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	env, err := keyturn.NewEnvelope(client, keyturn.EnvelopeConfig{Key: "phi"})
	if err != nil {
		return nil, err
	}
	defer env.Close()
	var rows []row
	bound := map[string]string{"patient": "17"}
	for _, size := range []int{64, 1024} {
		plaintext := make([]byte, size)
		var ours, theirs, ratios []float64
		for range e.pairs {
			a := nanoseconds(func() error {
				_, err := env.AppendSeal(context.Background(), nil, plaintext, bound)
				return err
			})
			hand := newPrimitives()
			b := nanoseconds(func() error { return hand.seal(plaintext) })
			ours, theirs, ratios = append(ours, a/1000), append(theirs, b/1000), append(ratios, a/b)
		}
		rows = append(rows, row{"S4", fmt.Sprintf("SDK envelope seal, %d B", size), us(ours), us(theirs) + " (primitives)", ratio(ratios), spread(ratios), "<= 1.3", met(median(ratios) <= 1.3)})
	}
	return rows, nil
}

func nanoseconds(op func() error) float64 {
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if err := op(); err != nil {
				b.Fatal(err)
			}
		}
	})
	return float64(r.T.Nanoseconds()) / float64(max(r.N, 1))
}
