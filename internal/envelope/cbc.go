package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// macCBC is HMAC-SHA-256 over everything, in the order of RFC 7518 section 5.2.2.1: what is authenticated only, what is
// encrypted, and the length of the former, so that no byte can move between the parts.
func macCBC(dst []byte, s *scratch, salt, ivAndCiphertext []byte) []byte {
	var bits [8]byte
	mac := hmac.New(sha256.New, s.okm[KeySize:])
	mac.Write(s.aad)
	mac.Write(salt)
	mac.Write(ivAndCiphertext)
	mac.Write(appendBitLen(bits[:0], len(s.aad)))
	return mac.Sum(dst)
}

func newAES(s *scratch) (cipher.Block, error) {
	block, err := aes.NewCipher(s.okm[:KeySize])
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "setting up AES-256")
	}
	return block, nil
}

// sealCBC appends iv | ciphertext | mac. The caller has grown dst far enough for all of it.
func sealCBC(dst, plaintext []byte, s *scratch, salt []byte) ([]byte, error) {
	block, err := newAES(s)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	var iv [aes.BlockSize]byte
	rand.Read(iv[:]) //nolint:errcheck // never returns an error since Go 1.24
	dst = append(dst, iv[:]...)
	dst = append(dst, plaintext...)
	pad := aes.BlockSize - len(plaintext)%aes.BlockSize
	for range pad {
		dst = append(dst, byte(pad))
	}
	body := dst[start+aes.BlockSize:]
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(body, body)
	return macCBC(dst, s, salt, dst[start:]), nil
}

// openCBC opens iv | ciphertext | mac. The MAC is compared before anything is decrypted, so that an attacker learns
// nothing from the padding: bytes that reach it were sealed by us.
func openCBC(dst, rest []byte, s *scratch, salt []byte) ([]byte, error) {
	sealed, tag := rest[:len(rest)-sha256.Size], rest[len(rest)-sha256.Size:]
	var want [sha256.Size]byte
	if !hmac.Equal(macCBC(want[:0], s, salt, sealed), tag) {
		return nil, errOpen
	}
	iv, body := sealed[:aes.BlockSize], sealed[aes.BlockSize:]
	if len(body) == 0 || len(body)%aes.BlockSize != 0 {
		return nil, errOpen
	}
	block, err := newAES(s)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = slices.Grow(dst, len(body))[:start+len(body)]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(dst[start:], body)
	n, ok := unpadded(dst[start:])
	if !ok {
		clear(dst[start:])
		return nil, errOpen
	}
	clear(dst[start+n:])
	return dst[:start+n], nil
}

// unpadded is the length of b without its PKCS #7 padding (RFC 5652 section 6.3). It looks at the last 16 bytes
// whatever they say, without a branch on them.
func unpadded(b []byte) (n int, ok bool) {
	last := b[len(b)-aes.BlockSize:]
	pad := int(last[aes.BlockSize-1])
	good := subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, aes.BlockSize)
	for i, c := range last {
		inside := subtle.ConstantTimeLessOrEq(aes.BlockSize-pad, i) // 1 where the byte is padding
		good &= subtle.ConstantTimeSelect(inside, subtle.ConstantTimeByteEq(c, byte(pad)), 1)
	}
	return len(b) - pad, good == 1
}
