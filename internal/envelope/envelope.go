// Package envelope turns plaintext into self-describing ciphertext and back: CRYPTO.md's suites 1, 2 and 4, by the
// standard library's primitives alone. It knows no store, no clock and no key hierarchy; it is handed 32 bytes of
// material and a purpose, and keeps to them.
//
//	key, err := envelope.NewKey(id, version, envelope.SuiteStandard, "phi", m) // m is owned by key now
//	ctx, err := envelope.NewContext(map[string]string{"patient": "17"})
//	blob, err := key.Seal(nil, plaintext, ctx)
//	text := envelope.AppendText(nil, blob)             // kt1.S1QBA…
//	plain, err := key.Open(nil, blob, ctx)
//
// Suites 1 and 2:
//
//	header = 'K' 'T' | format 1 | suite | key id 16 | version u32                      24 bytes, big-endian
//	okm    = HKDF-Expand-SHA-512(K, "keyturn/v1/aead" 00 purpose 00 salt SHA-256(header || C), 64)   RFC 5869 section 2.3
//	dk     = okm[:32]     com = okm[32:] (suite 2: okm[32:48])
//	blob   = header | salt | com | nonce | AES-256-GCM(dk, nonce, P, header || C)      SP 800-38D, random 96-bit nonce
//
// Suite 4:
//
//	okm    = HKDF-Expand-SHA-512(K, "keyturn/v1/cbc" 00 purpose 00 salt SHA-256(header || C), 64)
//	ek     = okm[:32]     mk = okm[32:]
//	blob   = header | salt | iv | ct = AES-256-CBC(ek, iv, PKCS #7(P)) | HMAC-SHA-256(mk, header || C || salt || iv || ct || u64 bits of header || C)
//
// # What it promises
//
// A ciphertext opens under one key, one version, one suite, one purpose and one context, or not at all; and it can't be
// made to open under two keys (the commitment is compared before GCM runs, and HMAC-SHA-256 commits by itself). Every
// failure to open has one code and one text, whatever the reason. No caller chooses a nonce, an initialisation vector
// or a salt. The length of a plaintext is not hidden.
package envelope

import (
	"encoding/binary"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxPlaintext is the most bytes of one message; longer data belongs into a stream.
const MaxPlaintext = 256 << 20

// The sentinels. One text for every reason why opening failed: a finer one would be an oracle.
var (
	errOpen = fault.New(api.CodeIntegrity,
		"opening a ciphertext: it was changed or cut short, or belongs to another key, version or context").
		WithField("ciphertext").WithNext("check the key and the context; keyturn inspect shows what the ciphertext says of itself")
	errMalformed = fault.New(api.CodeIntegrity, "reading a ciphertext: it isn't one of keyturn's, or it was changed or cut short").
			WithField("ciphertext")
	// ErrOpen is what Open answers to everything that it refuses, for services that see a reason of their own and must
	// not say another.
	ErrOpen = errOpen
	// ErrDestroyed is what a Key answers after Destroy: the caller's copy is stale, fetch the key again.
	ErrDestroyed = fault.New(api.CodeUnavailable, "using a key that was dropped from memory")
)

// Info is what a ciphertext says of itself without any key. Nobody has authenticated it.
type Info struct {
	Header
	Bytes int  // length of the plaintext
	Exact bool // false for CBC: the padding hides the last 1 to 16 bytes, and Bytes is the most it can be
}

// Inspect reads the header of a binary ciphertext and checks that the rest can be there. Errors are of code integrity.
func Inspect(blob []byte) (Info, error) {
	h, err := parseHeader(blob)
	if err != nil {
		return Info{}, err
	}
	p := h.Suite.shape()
	n := len(blob) - p.fixed()
	switch {
	case !p.messages, n < 0:
		return Info{}, errMalformed
	case p.padding == 0:
		return Info{Header: h, Bytes: n, Exact: true}, nil
	case n == 0, n%p.padding != 0:
		return Info{}, errMalformed
	}
	return Info{Header: h, Bytes: n - 1}, nil
}

// appendBitLen appends the length of b in bits, as SP 800-38D and RFC 7518 section 5.2.2.1 close their MAC input.
func appendBitLen(dst []byte, n int) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n)*8)
}
