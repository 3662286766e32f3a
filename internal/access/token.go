package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Token is a bearer token as it is stored: without its text, which only its holder has. The text carries 256 random
// bits, so a plain hash of it is enough and no slow one is needed.
type Token struct {
	ID          string // 16 hexadecimal digits, random
	PrincipalID string
	Hash        [32]byte // SHA-256 of the text
	Created     time.Time
	Expires     time.Time // zero: never
	Revoked     time.Time // zero: not revoked
	IssuedBy    string    // the id of the principal who had it made, and so may know its text; empty for an older release's
	MAC         string    // of the stored row, made and checked by package kms
}

// Usable says whether the token may be used at this time. A token is dead at its expiry, not a moment after it.
func (t Token) Usable(now time.Time) bool {
	return t.Revoked.IsZero() && (t.Expires.IsZero() || now.Before(t.Expires))
}

// TokenPrefix begins every token, so that a scanner of secrets finds one that was leaked.
const TokenPrefix = "kt_"

// The parts of a token's text: prefix, id, "_", secret, checksum.
const (
	tokenIDLen     = 16 // hexadecimal digits of 8 bytes
	tokenSecretLen = 43 // base64url of 32 bytes
	tokenSumLen    = 8  // hexadecimal digits of the first 4 bytes of SHA-256 over all before it
	tokenLen       = len(TokenPrefix) + tokenIDLen + 1 + tokenSecretLen + tokenSumLen
)

// token64 refuses stray bits in the last character, so a secret has one spelling.
var token64 = base64.RawURLEncoding.Strict()

// MaxToken is the length of every token in bytes; nothing longer needs to be looked at.
const MaxToken = tokenLen

// errToken is what every text that isn't a token gets.
var errToken = fault.New(api.CodeUnauthenticated, "the token is not accepted")

// NewToken makes a token from 40 bytes of random, which must be the system's generator. The text is shown once and
// never stored; the caller sets PrincipalID and the times.
func NewToken(random io.Reader) (text string, t Token, err error) {
	var raw [40]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", Token{}, fault.Wrap(api.CodeUnavailable, err, "making a token: reading random bytes")
	}
	t.ID = hex.EncodeToString(raw[:8])
	body := TokenPrefix + t.ID + "_" + token64.EncodeToString(raw[8:])
	text = body + checksum(body)
	t.Hash = sha256.Sum256([]byte(text))
	return text, t, nil
}

// ParseToken takes a token's text apart. It is strict: every other spelling, and every text longer or shorter by one
// character, is refused, and always with the same error. It says nothing about whether such a token exists.
func ParseToken(text string) (id string, hash [32]byte, err error) {
	if len(text) != tokenLen || !strings.HasPrefix(text, TokenPrefix) {
		return "", hash, errToken
	}
	body, sum := text[:tokenLen-tokenSumLen], text[tokenLen-tokenSumLen:]
	id, secret := body[len(TokenPrefix):len(TokenPrefix)+tokenIDLen], body[len(TokenPrefix)+tokenIDLen+1:]
	if body[len(TokenPrefix)+tokenIDLen] != '_' || !isHex(id) || !isSecret(secret) ||
		subtle.ConstantTimeCompare([]byte(sum), []byte(checksum(body))) != 1 {
		return "", hash, errToken
	}
	return id, sha256.Sum256([]byte(text)), nil
}

// checksum lets a scanner of secrets, and a person who lost a character, tell a token from something like it. It
// protects nothing.
func checksum(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:tokenSumLen/2])
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

func isSecret(s string) bool {
	if strings.ContainsAny(s, "\r\n") { // base64 would skip them
		return false
	}
	raw, err := token64.DecodeString(s)
	return err == nil && len(raw) == 32
}
