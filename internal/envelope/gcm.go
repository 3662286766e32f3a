package envelope

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// newGCM is AES-256-GCM under the message's own key; the nonce is made, put first and read back by the module itself
// (SP 800-38D section 8.2.2), the one form of it that is approved under fips140=only.
func newGCM(s *scratch) (cipher.AEAD, error) {
	block, err := aes.NewCipher(s.okm[:KeySize])
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "setting up AES-256")
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "setting up AES-256-GCM")
	}
	return aead, nil
}

func sealGCM(dst, plaintext []byte, s *scratch) ([]byte, error) {
	aead, err := newGCM(s)
	if err != nil {
		return nil, err
	}
	return aead.Seal(dst, nil, plaintext, s.aad), nil
}

// openGCM opens nonce | ciphertext | tag.
func openGCM(dst, sealed []byte, s *scratch) ([]byte, error) {
	aead, err := newGCM(s)
	if err != nil {
		return nil, err
	}
	out, err := aead.Open(dst, nil, sealed, s.aad)
	if err != nil {
		return nil, errOpen
	}
	return out, nil
}
