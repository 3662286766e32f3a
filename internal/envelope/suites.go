package envelope

import (
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Suite is the number in the fourth byte of every ciphertext: how it is laid out and which primitives made it. A number
// is never reused. The zero Suite is invalid.
type Suite uint8

// The suites. A key has one for life; a new one is a new number, a row in the table below, a file and its vectors.
const (
	SuiteStandard Suite = 1 // AES-256-GCM under a derived key, 32-byte salt and commitment: the default
	SuiteCompact  Suite = 2 // the same with 16-byte salt and commitment, for narrow columns
	SuiteStream   Suite = 3 // reserved for files and backups in chunks; this package doesn't seal or open it
	SuiteCBC      Suite = 4 // AES-256-CBC, then HMAC-SHA-256, for keys declared so
)

// shape is what a suite says about the bytes after the header.
type shape struct {
	name     string
	salt     int // random bytes that the per-message key is derived with
	com      int // bytes of key commitment; 0 where the MAC itself commits to the key
	iv       int // the nonce of GCM or the initialisation vector of CBC
	tag      int
	padding  int // the most bytes that padding adds; 0 where a plaintext keeps its length
	messages bool
}

// suites is the one table of suites, by number.
var suites = [...]shape{
	SuiteStandard: {name: "standard", salt: 32, com: 32, iv: 12, tag: 16, messages: true},
	SuiteCompact:  {name: "compact", salt: 16, com: 16, iv: 12, tag: 16, messages: true},
	SuiteStream:   {name: "stream"},
	SuiteCBC:      {name: "cbc", salt: 32, iv: 16, tag: 32, padding: 16, messages: true},
}

// shape returns the row of s, or nil when s isn't a suite.
func (s Suite) shape() *shape {
	if int(s) >= len(suites) || suites[s].name == "" {
		return nil
	}
	return &suites[s]
}

// fixed is the number of bytes around the ciphertext proper, padding not counted.
func (p *shape) fixed() int { return HeaderSize + p.salt + p.com + p.iv + p.tag }

// String is the name of the suite in configuration and documents: "standard", "compact", "stream", "cbc".
func (s Suite) String() string {
	if p := s.shape(); p != nil {
		return p.name
	}
	return "invalid"
}

// ParseSuite reads what String prints, and nothing else. "stream" isn't a suite that a key can be declared with.
func ParseSuite(name string) (Suite, error) {
	for s := range suites {
		if suites[s].messages && suites[s].name == name {
			return Suite(s), nil
		}
	}
	return 0, fault.New(api.CodeInvalid, "reading the name of a cipher suite: no such suite").
		WithField("suite").WithNext("use standard, compact or cbc")
}

// Overhead is the most bytes by which a binary ciphertext is longer than its plaintext: exactly 116 for the standard
// suite and 84 for the compact one, at most 120 for CBC. It is 0 for a suite that doesn't seal single messages.
func (s Suite) Overhead() int {
	p := s.shape()
	if p == nil || !p.messages {
		return 0
	}
	return p.fixed() + p.padding
}

// SealedLen is the exact length of the binary ciphertext of a plaintext of n bytes.
func (s Suite) SealedLen(n int) int {
	p := s.shape()
	if p == nil || !p.messages {
		return 0
	}
	if p.padding > 0 {
		n += p.padding - n%p.padding
	}
	return p.fixed() + n
}
