package foreign

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

var errNoClone = fault.New(api.CodeInternal, "loading a candidate key: this build's HMAC can't be cloned")

// cbcKey decrypts AES-CBC and, where there is one, checks the MAC first. It holds key schedules and no key.
type cbcKey struct {
	block cipher.Block
	mac   hash.Cloner // nil: nothing verifies
}

// newCBCKey makes one of an AES key of 16, 24 or 32 bytes and a MAC key, nil without one.
func newCBCKey(key, macKey []byte) (c cbcKey, err error) {
	if c.block, err = aes.NewCipher(key); err != nil {
		return c, fault.New(api.CodeInternal, "loading a candidate key: setting up AES")
	}
	if macKey != nil {
		c.mac, err = keyedMAC(macKey)
	}
	return c, err
}

func (k *cbcKey) destroy() { k.block, k.mac = nil, nil }

// verifies compares the MAC of everything in front of it.
func (k *cbcKey) verifies(m *message) bool {
	if k.mac == nil {
		return false
	}
	mac, err := k.mac.Clone()
	if err != nil {
		return false
	}
	mac.Write(m.all)
	return hmac.Equal(mac.Sum(nil), m.mac)
}

// open of a value with a MAC checks that first.
func (k *cbcKey) open(dst []byte, m *message, _ time.Time) ([]byte, Verdict) {
	if m.verified && !k.verifies(m) {
		return dst, NoKey
	}
	return k.decrypt(dst, m)
}

func (k *cbcKey) decrypt(dst []byte, m *message) ([]byte, Verdict) {
	return decryptCBC(dst, k.block, m.iv, m.body)
}

// decryptCBC appends the plaintext of body, which is whole blocks, at least one.
func decryptCBC(dst []byte, block cipher.Block, iv, body []byte) ([]byte, Verdict) {
	start := len(dst)
	out := slices.Grow(dst, len(body))[:start+len(body)]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out[start:], body)
	n, ok := unpadded(out[start:])
	if !ok {
		clear(out[start:])
		return dst, NoKey
	}
	clear(out[start+n:])
	return out[:start+n], Opened
}

// unpadded is the length of b without its PKCS #7 padding (RFC 5652 section 6.3). It looks at the last 16 bytes whatever
// they say, without a branch on them.
func unpadded(b []byte) (n int, ok bool) {
	last := b[len(b)-blockSize:]
	pad := int(last[blockSize-1])
	good := subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, blockSize)
	for i, c := range last {
		inside := subtle.ConstantTimeLessOrEq(blockSize-pad, i) // 1 where the byte is padding
		good &= subtle.ConstantTimeSelect(inside, subtle.ConstantTimeByteEq(c, byte(pad)), 1)
	}
	return len(b) - pad, good == 1
}

// blocks reports whether n bytes are whole blocks, and at least so many.
func blocks(n, least int) bool { return n >= least*blockSize && n%blockSize == 0 }

// parseIV reads IV | ciphertext.
func parseIV(o *Opener, value []byte, text bool) (message, Verdict) {
	raw, ok := o.unpack(value, text, func(b []byte) bool { return blocks(len(b), 2) })
	if !ok {
		return missed(false)
	}
	return message{iv: raw[:blockSize], body: raw[blockSize:]}, Opened
}

// parseRaw reads ciphertext alone; its IV is the Source's.
func parseRaw(o *Opener, value []byte, text bool) (message, Verdict) {
	raw, ok := o.unpack(value, text, func(b []byte) bool { return blocks(len(b), 1) })
	if !ok {
		return missed(false)
	}
	return message{iv: o.iv, body: raw}, Opened
}

// parseHMAC reads IV | ciphertext | HMAC-SHA-256.
func parseHMAC(o *Opener, value []byte, text bool) (message, Verdict) {
	raw, ok := o.unpack(value, text, func(b []byte) bool { return blocks(len(b)-sha256.Size, 2) })
	if !ok {
		return missed(false)
	}
	end := len(raw) - sha256.Size
	return message{iv: raw[:blockSize], body: raw[blockSize:end], mac: raw[end:], all: raw[:end], verified: true}, Opened
}

func loadCBC(_ *Opener, m *material.Bytes) (candidate, error) {
	c, err := newCBCKey(m.Expose(), nil)
	return &c, err
}

// loadHMAC takes the AES key and the MAC key back to back, or one key for both.
func loadHMAC(_ *Opener, m *material.Bytes) (candidate, error) {
	key := m.Expose()
	c, err := newCBCKey(key[:32], key[len(key)-32:])
	return &c, err
}

// loadRaw takes a key as pgcrypto does: of 1 to 32 bytes, filled up with zeroes to the next length that AES has.
func loadRaw(o *Opener, m *material.Bytes) (candidate, error) {
	if m.Len() > 32 {
		return nil, fault.New(api.CodeInvalid, "reading a candidate key: keys of pgcrypto's encrypt() have 32 bytes at most").WithField("from.keys")
	}
	key := make([]byte, max(16, (m.Len()+7)/8*8))
	defer clear(key)
	copy(key, m.Expose())
	c, err := newCBCKey(key, nil)
	return &c, err
}
