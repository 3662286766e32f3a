package envelope

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// The labels keep the subkeys of one version apart: no two uses can ever derive the same bytes, since none is a prefix
// of another followed by a zero byte.
const (
	labelAEAD   = "keyturn/v1/aead"
	labelCBC    = "keyturn/v1/cbc"
	labelDerive = "keyturn/v1/derive"
)

// Limits of names that go into a derivation, in bytes, and of the length of a derived key.
const (
	maxPurpose = 64
	maxLabel   = 128
	minDerived = 16
	maxDerived = sha512.Size
)

// Key seals and opens under one version of a key. It is safe for concurrent use.
//
// HKDF-Expand-SHA-512 to at most 64 bytes is exactly one HMAC block (RFC 5869 section 2.3 with N = 1), so a Key keeps
// the keyed state of HMAC-SHA-512 and not the material: a message costs two compressions and the set-up of AES-GCM.
type Key struct {
	header  Header
	purpose string
	// core is nil after Destroy. Whoever loaded it before finishes the message under the right key.
	core atomic.Pointer[core]
}

// core is the secret part of a Key. It is never changed, so that it needs no lock.
type core struct {
	keyed hash.Cloner // HMAC-SHA-512 over no input yet; only ever cloned
	pool  sync.Pool   // of *scratch
}

// scratch is what one message needs; it belongs to one goroutine between get and put.
type scratch struct {
	mac  hash.Hash // a clone of core.keyed
	aad  []byte    // header || context
	info []byte    // of HKDF-Expand
	okm  [sha512.Size]byte
}

// NewKey takes ownership of m, which must be 32 bytes, and destroys it, whether it succeeds or not. The purpose is
// bound into every derivation: 1 to 64 bytes, no zero byte. Errors are of code invalid.
func NewKey(id KeyID, version uint32, suite Suite, purpose string, m *material.Bytes) (*Key, error) {
	defer m.Destroy()
	p := suite.shape()
	switch {
	case id.IsZero() || version == 0:
		return nil, fault.New(api.CodeInvalid, "loading a key: it needs an id and a version from 1").WithField("keyId")
	case p == nil || !p.messages:
		return nil, fault.New(api.CodeInvalid, "loading a key: no such suite for single messages").WithField("suite")
	case !validName(purpose, maxPurpose):
		return nil, fault.New(api.CodeInvalid, "loading a key: the purpose must be 1 to 64 bytes without a zero byte").WithField("purpose")
	case m.Len() != KeySize:
		return nil, fault.Newf(api.CodeInvalid, "loading a key: its material must be %d bytes", KeySize).WithField("material")
	}
	mac := hmac.New(sha512.New, m.Expose())
	mac.Reset() // from here on it holds the two compressed states, no longer the padded key
	keyed, ok := mac.(hash.Cloner)
	if !ok {
		return nil, fault.New(api.CodeInternal, "loading a key: this build's HMAC can't be cloned")
	}
	k := &Key{header: Header{Format, suite, id, version}, purpose: purpose}
	k.core.Store(&core{keyed: keyed})
	return k, nil
}

// Header is what every ciphertext of this key begins with.
func (k *Key) Header() Header { return k.header }

// String says which key this is, and nothing of what it holds.
func (k *Key) String() string {
	return fmt.Sprintf("key %v version %d (%v)", k.header.KeyID, k.header.Version, k.header.Suite)
}

// Format prints String under every verb, so that no verb walks into the secret state.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// Destroy makes every later use fail with ErrDestroyed; messages in flight finish. The material itself was destroyed by
// NewKey; the HMAC states that are left become garbage.
func (k *Key) Destroy() { k.core.Store(nil) }

// Seal appends the binary ciphertext of plaintext to dst and returns the result; dst must not overlap plaintext. With
// SealedLen bytes of room in dst nothing but the cipher itself is allocated. Errors: too_large, invalid for a context
// over its limit, ErrDestroyed.
func (k *Key) Seal(dst, plaintext []byte, c Context) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, fault.Newf(api.CodeTooLarge, "sealing a message: it is longer than %d MiB", MaxPlaintext>>20).WithField("plaintext")
	}
	co, s, err := k.begin(c)
	if err != nil {
		return nil, err
	}
	defer co.end(s)

	shape := k.header.Suite.shape()
	dst = slices.Grow(dst, k.header.Suite.SealedLen(len(plaintext)))
	dst = k.header.append(dst)
	salt := dst[len(dst) : len(dst)+shape.salt]
	rand.Read(salt) //nolint:errcheck // never returns an error since Go 1.24
	dst = dst[:len(dst)+shape.salt]
	if k.header.Suite == SuiteCBC {
		s.expand(k.info(s, labelCBC, salt))
		return sealCBC(dst, plaintext, s, salt)
	}
	s.expand(k.info(s, labelAEAD, salt))
	return sealGCM(append(dst, s.okm[KeySize:KeySize+shape.com]...), plaintext, s)
}

// Open appends the plaintext of a binary ciphertext to dst and returns the result; dst must not overlap blob. It
// refuses any other key id, version or suite than its own. Whatever is wrong with blob or c, the error is the same, of
// code integrity; the only other one is ErrDestroyed.
func (k *Key) Open(dst, blob []byte, c Context) ([]byte, error) {
	h, err := parseHeader(blob)
	shape := k.header.Suite.shape()
	if err != nil || h != k.header || len(blob) < shape.fixed() || len(c) > MaxContext {
		return nil, errOpen
	}
	co, s, err := k.begin(c)
	if err != nil {
		return nil, err
	}
	defer co.end(s)

	salt, rest := blob[HeaderSize:HeaderSize+shape.salt], blob[HeaderSize+shape.salt:]
	if k.header.Suite == SuiteCBC {
		s.expand(k.info(s, labelCBC, salt))
		return openCBC(dst, rest, s, salt)
	}
	s.expand(k.info(s, labelAEAD, salt))
	if !hmac.Equal(rest[:shape.com], s.okm[KeySize:KeySize+shape.com]) {
		return nil, errOpen
	}
	return openGCM(dst, rest[shape.com:], s)
}

// AppendDerived appends n bytes (16 to 64) that only this version, this label and this context give, the same every
// time:
//
//	HKDF-Expand-SHA-512(K, "keyturn/v1/derive" 00 label 00 purpose 00 id | version u32 | SHA-256(C) | n u16, n)
//
// They leave as a key of the caller's: nothing that this package seals is ever sealed under them. The label is 1 to 128
// bytes without a zero byte. Errors: invalid, ErrDestroyed.
func (k *Key) AppendDerived(dst []byte, label string, c Context, n int) ([]byte, error) {
	if !validName(label, maxLabel) {
		return nil, fault.New(api.CodeInvalid, "deriving a key: the label must be 1 to 128 bytes without a zero byte").WithField("label")
	}
	if n < minDerived || n > maxDerived {
		return nil, fault.Newf(api.CodeInvalid, "deriving a key: its length must be %d to %d bytes", minDerived, maxDerived).WithField("bytes")
	}
	co, s, err := k.begin(c)
	if err != nil {
		return nil, err
	}
	defer co.end(s)

	digest := sha256.Sum256(c.bytes())
	info := appendName(s.info[:0], labelDerive)
	info = appendName(info, label)
	info = appendName(info, k.purpose)
	info = append(info, k.header.KeyID[:]...)
	info = binary.BigEndian.AppendUint32(info, k.header.Version)
	info = append(info, digest[:]...)
	s.info = binary.BigEndian.AppendUint16(info, uint16(n))
	s.expand(s.info)
	return append(dst, s.okm[:n]...), nil
}

// begin checks the context, takes a scratch and puts header || context into it.
func (k *Key) begin(c Context) (*core, *scratch, error) {
	if len(c) > MaxContext {
		return nil, nil, badContext("it is longer than 8 KiB")
	}
	co := k.core.Load()
	if co == nil {
		return nil, nil, ErrDestroyed
	}
	s, ok := co.pool.Get().(*scratch)
	if !ok {
		clone, err := co.keyed.Clone()
		if err != nil {
			return nil, nil, fault.Wrap(api.CodeInternal, err, "copying the keyed state")
		}
		s = &scratch{mac: clone}
	}
	s.aad = append(k.header.append(s.aad[:0]), c.bytes()...)
	return co, s, nil
}

// end wipes what the message left in s and gives it back.
func (co *core) end(s *scratch) {
	clear(s.okm[:])
	s.mac.Reset()
	co.pool.Put(s)
}

// info is the input of the derivation of a message's keys: label 00 purpose 00 salt SHA-256(header || C).
func (k *Key) info(s *scratch, label string, salt []byte) []byte {
	digest := sha256.Sum256(s.aad)
	info := appendName(s.info[:0], label)
	info = appendName(info, k.purpose)
	info = append(info, salt...)
	s.info = append(info, digest[:]...)
	return s.info
}

// expand is HKDF-Expand for one block: okm = HMAC(K, info || 0x01).
func (s *scratch) expand(info []byte) {
	s.info = append(info, 1)
	s.mac.Write(s.info)
	s.mac.Sum(s.okm[:0])
}

func appendName(dst []byte, name string) []byte { return append(append(dst, name...), 0) }

func validName(name string, limit int) bool {
	return name != "" && len(name) <= limit && strings.IndexByte(name, 0) < 0
}
