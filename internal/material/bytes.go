// Package material holds secret bytes: it makes them, compares them, copies them, destroys them, and never shows them.
//
// A [Bytes] prints, formats, marshals and logs as "[redacted]", whatever verb or encoder asks. The only way to its
// content is [Bytes.Expose], one word to grep for, and a test of this package fails when any room but envelope, foreign
// and keyring says it.
//
//	kek := material.Random(32)
//	defer kek.Destroy()
//	key, err := envelope.NewKey(id, 1, envelope.SuiteStandard, "kek", kek.Clone())
//
// # What destroying means
//
// Destroy overwrites the buffer. It can't reach what others made of the bytes: the key schedule inside crypto/aes, the
// HMAC state, a register spilled to a stack. [Harden] closes the way by which such remains leave the process (core
// dumps, ptrace by the same user), and [Secretly] has the runtime erase them where the toolchain can.
//
// The pages are not locked with mlock: a lock covers whole pages while the remains above live anywhere on the heap, the
// default limit (RLIMIT_MEMLOCK) is smaller than a busy cache, and so the lock would promise more than it keeps. A host
// that swaps should encrypt its swap.
package material

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
)

// Redacted is what every printer and encoder gets instead of the content.
const Redacted = "[redacted]"

// Bytes is a buffer of secret bytes with one owner, who calls Destroy when done. Use it by pointer; the zero value is
// destroyed already. It has no lock: the owner makes sure that nobody reads while Destroy runs.
//
// The content stands behind a function because package fmt walks into the unexported fields of a struct that holds a
// Bytes without asking any method, and would print what it finds behind a pointer; of a function it prints an address.
// It also makes comparing two Bytes with == a compile error.
type Bytes struct {
	content func() *content
}

// content is shared by every copy of a Bytes, so that one Destroy reaches them all; b is nil once destroyed.
type content struct {
	b []byte
}

// New takes ownership of b: the caller must neither read nor write it afterwards.
func New(b []byte) *Bytes {
	if b == nil {
		b = []byte{}
	}
	c := &content{b}
	return &Bytes{func() *content { return c }}
}

// Random makes n bytes by the system's generator (SP 800-90A where the FIPS module is on), which never fails: it ends
// the process rather than return weak bytes.
func Random(n int) *Bytes {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never returns an error since Go 1.24
	return New(b)
}

// Expose returns the secret bytes themselves, not a copy: valid until Destroy, not to be kept, changed or printed. It
// panics after Destroy, because zeroes used as a key would protect nothing and nobody would notice.
func (m *Bytes) Expose() []byte {
	if !m.alive() {
		panic("material: exposing secret bytes that were destroyed")
	}
	return m.content().b
}

// Len is the number of bytes, 0 after Destroy.
func (m *Bytes) Len() int {
	if !m.alive() {
		return 0
	}
	return len(m.content().b)
}

// Equal compares in a time that depends on the lengths only. Destroyed bytes equal nothing, not even each other.
func (m *Bytes) Equal(other *Bytes) bool {
	return m.alive() && other.alive() && subtle.ConstantTimeCompare(m.content().b, other.content().b) == 1
}

// Clone copies the bytes for another owner. Like Expose it panics after Destroy.
func (m *Bytes) Clone() *Bytes {
	return New(append(make([]byte, 0, m.Len()), m.Expose()...))
}

// Destroy overwrites the bytes with zeroes and lets go of them. Calling it again, or on nil, does nothing.
func (m *Bytes) Destroy() {
	if !m.alive() {
		return
	}
	c := m.content()
	clear(c.b[:cap(c.b)])
	c.b = nil
}

func (m *Bytes) alive() bool { return m != nil && m.content != nil && m.content().b != nil }

// String returns Redacted.
func (Bytes) String() string { return Redacted }

// GoString returns Redacted, for %#v.
func (Bytes) GoString() string { return Redacted }

// Format prints Redacted under every verb, %x and %d included.
func (Bytes) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Redacted) }

// MarshalText returns Redacted, for every encoder that knows encoding.TextMarshaler: JSON, YAML, XML, log/slog.
func (Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON returns Redacted as a JSON string.
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }
