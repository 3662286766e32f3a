package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Sizes of the parts that every suite shares, in bytes.
const (
	HeaderSize = 24 // 'K' 'T' | format | suite | key id 16 | version u32; exactly 32 characters of base64
	KeySize    = 32 // of the material of a version
	PrefixLen  = 36 // characters of Header.PrefixText: what left(column, 36) yields in SQL
)

// Format is the only value of the third byte of a ciphertext so far.
const Format = 1

// KeyID names a key in its ciphertexts: 16 random bytes, so that a ciphertext tells nobody what it is about. The zero
// KeyID is invalid.
type KeyID [16]byte

// NewKeyID makes a random id.
func NewKeyID() (id KeyID) {
	for id == (KeyID{}) {
		rand.Read(id[:]) //nolint:errcheck // never returns an error since Go 1.24
	}
	return id
}

// String is the id as 32 lower-case hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id was never set.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// ParseKeyID reads exactly what String prints.
func ParseKeyID(s string) (id KeyID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s || KeyID(b).IsZero() {
		return KeyID{}, fault.New(api.CodeInvalid, "reading a key id: it must be 32 lower-case hexadecimal digits, not all zero").
			WithField("keyId")
	}
	return KeyID(b), nil
}

// Header is the part of a ciphertext that is readable without a key. All of it is authenticated.
type Header struct {
	Format  uint8
	Suite   Suite
	KeyID   KeyID
	Version uint32 // of the key, from 1
}

// AppendBinary appends the 24 bytes of h. It never fails; the error is there for encoding.BinaryAppender.
func (h Header) AppendBinary(dst []byte) ([]byte, error) { return h.append(dst), nil }

func (h Header) append(dst []byte) []byte {
	dst = append(dst, 'K', 'T', h.Format, byte(h.Suite))
	dst = append(dst, h.KeyID[:]...)
	return binary.BigEndian.AppendUint32(dst, h.Version)
}

// PrefixText is the first 36 characters of every text ciphertext with this header: "kt1." and the header in base64url.
// In SQL left(column, 36) yields it, so a census groups by it without any key.
func (h Header) PrefixText() string {
	var raw [HeaderSize]byte
	return string(AppendText(make([]byte, 0, PrefixLen), h.append(raw[:0])))
}

// ParsePrefixText reads what PrefixText prints, and nothing else.
func ParsePrefixText(s string) (Header, error) {
	if len(s) != PrefixLen {
		return Header{}, errMalformed
	}
	var raw [HeaderSize]byte
	b, err := AppendDecodedText(raw[:0], []byte(s))
	if err != nil {
		return Header{}, err
	}
	return parseHeader(b)
}

// parseHeader reads the first 24 bytes of b and accepts only what append could have written.
func parseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || b[0] != 'K' || b[1] != 'T' || b[2] != Format {
		return Header{}, errMalformed
	}
	h := Header{
		Format:  b[2],
		Suite:   Suite(b[3]),
		KeyID:   KeyID(b[4:20]),
		Version: binary.BigEndian.Uint32(b[20:24]),
	}
	if h.Suite.shape() == nil || h.KeyID.IsZero() || h.Version == 0 {
		return Header{}, errMalformed
	}
	return h, nil
}
