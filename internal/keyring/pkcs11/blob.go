//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// What the token makes of a key, inside of the blob that keyring.Commit makes; its form is frozen:
//
//	'K' 'H' | format 1 | fingerprint of the key 16 | initialisation vector 12 | ciphertext | tag 16
//
// The header (the first 19 bytes) and the binding in canonical form are the associated data.
const (
	magic      = "KH\x01"
	idSize     = 16
	ivSize     = 12
	tagSize    = 16
	headerSize = len(magic) + idSize
	maxSecret  = 4 << 10 // bytes to wrap; keys have 16 to 64
)

// A key's fingerprint is a hash of what it makes of a constant message, so it comes with the key wherever that is cloned
// to, and nobody without the key can give another one the same. Labels, CKA_ID and serial numbers are anybody's to choose;
// the check value (CKA_CHECK_VALUE) has 24 bits and is read off GCM's own hash key; CMAC and ECB would need a second
// mechanism on the key.
//
// The message has an initialisation vector of its own, which no wrapping uses (see newIV). Encrypting the same message
// under the same vector again gives the same bytes, and so tells nothing new: what SP 800-38D forbids is a vector with two
// messages. Only the hash leaves this package.
var (
	printIV      = []byte("keyturn/mkid")
	printMessage = []byte("keyturn/mk-print")
	printData    = []byte("keyturn/master-fingerprint")
)

// fingerprint hashes the sealed constant message.
func fingerprint(sealed []byte) [idSize]byte {
	sum := sha256.Sum256(append(bytes.Clone(printData), sealed...))
	return [idSize]byte(sum[:idSize])
}

func newIV() []byte {
	iv := bytes.Clone(printIV)
	for hmac.Equal(iv, printIV) {
		_, _ = rand.Read(iv) // never fails: see crypto/rand
	}
	return iv
}

func header(id [idSize]byte) []byte { return append([]byte(magic), id[:]...) }

// dataOf is the associated data of a wrapping.
func dataOf(id [idSize]byte, b keyring.Binding) ([]byte, error) {
	c, err := b.Context()
	if err != nil {
		return nil, err
	}
	return append(header(id), c...), nil
}

// split takes what this key wrapped apart. Whatever it refuses is never shown to the token.
func split(wrapped []byte, id [idSize]byte) (iv, sealed []byte, err error) {
	if len(wrapped) < headerSize+ivSize+tagSize || len(wrapped) > headerSize+ivSize+maxSecret+tagSize || !bytes.HasPrefix(wrapped, []byte(magic)) {
		return nil, nil, fault.New(api.CodeIntegrity, "unwrapping: it is no key that a PKCS#11 master key wrapped, or it was changed")
	}
	if !bytes.HasPrefix(wrapped, header(id)) {
		return nil, nil, fault.New(api.CodeIntegrity, "unwrapping: another PKCS#11 master key wrapped it")
	}
	rest := wrapped[headerSize:]
	return rest[:ivSize], rest[ivSize:], nil
}

// idOf is the fingerprint as text.
func idOf(id [idSize]byte) string { return envelope.KeyID(id).String() }
