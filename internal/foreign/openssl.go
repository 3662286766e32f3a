package foreign

import (
	"bytes"
	"crypto/aes"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha256"
	"time"

	"github.com/keyturn/keyturn/internal/material"
)

// What openssl enc -aes-256-cbc -pbkdf2 writes: "Salted__", 8 bytes of salt, ciphertext. Key and IV are PBKDF2-HMAC-SHA-256
// of the password.
var (
	opensslMagic  = []byte("Salted__")
	opensslBase64 = []byte("U2FsdGVkX1") // how it begins in base64, and below in hex
	opensslHex    = []byte("53616c7465645f5f")
)

const opensslSalt = 8

func parseOpenSSL(o *Opener, value []byte, text bool) (message, Verdict) {
	magic := len(opensslMagic)
	raw, ok := o.unpack(value, text, func(b []byte) bool { return bytes.HasPrefix(b, opensslMagic) })
	if !ok || !blocks(len(raw)-magic-opensslSalt, 1) {
		trimmed := bytes.TrimPrefix(bytes.TrimSpace(value), []byte(`\x`))
		return missed(ok || bytes.HasPrefix(trimmed, opensslMagic) || bytes.HasPrefix(trimmed, opensslBase64) ||
			bytes.HasPrefix(bytes.ToLower(trimmed[:min(len(trimmed), 64)]), opensslHex))
	}
	return message{iv: raw[magic : magic+opensslSalt], body: raw[magic+opensslSalt:]}, Opened
}

// opensslPassword is one candidate. It keeps the password, because every value has its own salt.
type opensslPassword struct {
	password   *material.Bytes
	iterations int
}

func loadOpenSSL(o *Opener, m *material.Bytes) (candidate, error) {
	p := &opensslPassword{password: m, iterations: o.src.Iterations}
	if p.iterations == 0 {
		p.iterations = defaultIterations
	}
	return p, nil
}

func (p *opensslPassword) destroy() { p.password.Destroy() }

func (p *opensslPassword) open(dst []byte, m *message, _ time.Time) (out []byte, v Verdict) {
	out, v = dst, NoKey
	// A salt of 8 bytes is too short for the FIPS module's taste; it is read here, never written.
	fips140.WithoutEnforcement(func() {
		okm, err := pbkdf2.Key(sha256.New, string(p.password.Expose()), m.iv, p.iterations, 32+blockSize)
		if err != nil {
			return
		}
		defer clear(okm)
		block, err := aes.NewCipher(okm[:32])
		if err != nil {
			return
		}
		out, v = decryptCBC(dst, block, okm[32:], m.body)
	})
	return out, v
}
