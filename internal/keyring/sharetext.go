package keyring

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// The text of a share is made to be printed, kept in an envelope for years, and typed in again by somebody under stress:
//
//	# keyturn escrow share 2 of 5. Any 3 of them open the store; fewer tell nothing.
//	# Set 5e475b4556814c694083e00d79498c65. …
//	kt-share1
//	0C2G-AQJY-… (22 groups of four)
//
// Lines that begin with # are for people. The rest is 55 bytes in Crockford's base32, which has no I, L, O and U, in any
// case and spacing; I and L are read as 1, O as 0:
//
//	threshold 1 | index 1 | total 1 | fingerprint of the key 16 | the share's bytes 32 | first 4 bytes of SHA-256 over "kt-share1" and the rest
//
// The sum finds typing errors in one share before others are fetched. It proves nothing about who made the share: that
// does the fingerprint, once enough of them are together.
const (
	shareMark   = "kt-share"
	sharePrefix = shareMark + "1"
	shareSum    = 4
	shareSize   = 3 + 16 + envelope.KeySize + shareSum
	shareChars  = shareSize * 8 / 5 // exactly: 55 bytes are 88 characters
	shareGroup  = 4
	shareLine   = 6 // groups a line
)

// MaxShareText is more than the text of a share ever takes, in bytes.
const MaxShareText = 4 << 10

// shareSymbols are the characters with their values, in the order in which they are tried.
const shareSymbols = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" + "abcdefghjkmnpqrstvwxyz" + "ILilOo"

// symbolValue is the value of shareSymbols[i].
func symbolValue(i int) byte {
	switch {
	case i < 32:
		return byte(i)
	case i < 54:
		return byte(i - 22)
	case i < 58:
		return 1
	}
	return 0
}

// AppendText appends the share's text, which is as secret as the share.
func (s EscrowShare) AppendText(dst []byte) []byte {
	raw := s.appendRaw(make([]byte, 0, shareSize))
	defer clear(raw)
	dst = fmt.Appendf(dst, "# keyturn escrow share %d of %d. Any %d of them together open the store; fewer tell nothing.\n", s.Index, s.Total, s.Threshold)
	dst = fmt.Appendf(dst, "# Set %s. Keep it closed, and away from the others and from the store.\n", s.Set)
	dst = fmt.Appendf(dst, "# To check it: keyturn escrow verify --share-file FILE\n%s\n", sharePrefix)
	for i := range shareChars {
		switch {
		case i > 0 && i%(shareGroup*shareLine) == 0:
			dst = append(dst, '\n')
		case i > 0 && i%shareGroup == 0:
			dst = append(dst, '-')
		}
		dst = append(dst, symbolOf(fiveBits(raw, i)))
	}
	return append(dst, '\n')
}

func (s EscrowShare) appendRaw(dst []byte) []byte {
	set, err := hex.DecodeString(s.Set)
	if err != nil || len(set) != 16 {
		panic("keyring: a share without a set") // neither SplitKey nor ParseEscrowShare makes one
	}
	dst = append(dst, byte(s.Threshold), byte(s.Index), byte(s.Total))
	dst = append(append(dst, set...), s.part.Y.Expose()...)
	return append(dst, sumOf(dst)...)
}

// sumOf is the check sum over a share's other bytes.
func sumOf(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte(sharePrefix))
	h.Write(b)
	return h.Sum(nil)[:shareSum]
}

// fiveBits is the i-th group of five bits.
func fiveBits(b []byte, i int) byte {
	at := i * 5
	two := uint16(b[at/8]) << 8
	if at/8+1 < len(b) {
		two |= uint16(b[at/8+1])
	}
	return byte(two>>(11-at%8)) & 31
}

// symbolOf looks at all symbols, so that the cache doesn't tell which one it was.
func symbolOf(v byte) (c byte) {
	for i := range 32 {
		c |= shareSymbols[i] & byte(-subtle.ConstantTimeByteEq(v, byte(i)))
	}
	return c
}

// valueOf looks at all symbols; known is 1 for one of them, else 0.
func valueOf(c byte) (v byte, known int) {
	for i := range len(shareSymbols) {
		hit := subtle.ConstantTimeByteEq(c, shareSymbols[i])
		v |= symbolValue(i) & byte(-hit)
		known |= hit
	}
	return v, known
}

// ParseEscrowShare reads a share's text, which it wipes; name is what errors call it. Errors: invalid for something that
// is no share, integrity for one that was mistyped, cut or damaged. None quotes it.
func ParseEscrowShare(name string, text []byte) (EscrowShare, error) {
	defer clear(text)
	body, err := shareBody(name, text)
	if err != nil {
		return EscrowShare{}, err
	}
	raw := make([]byte, shareSize)
	defer clear(raw)
	n := 0
	for _, c := range body {
		if isSeparator(c) {
			continue
		}
		v, known := valueOf(c)
		if n++; known == 0 {
			return EscrowShare{}, damaged(name, "its character %d is none of those that shares are written in", n)
		}
		if n <= shareChars {
			putFiveBits(raw, n-1, v)
		}
	}
	if n != shareChars {
		return EscrowShare{}, damaged(name, "it has %d characters and should have %d", n, shareChars)
	}
	return shareOf(name, raw)
}

// shareOf takes the share's bytes apart.
func shareOf(name string, raw []byte) (EscrowShare, error) {
	front, sum := raw[:shareSize-shareSum], raw[shareSize-shareSum:]
	if subtle.ConstantTimeCompare(sumOf(front), sum) != 1 {
		return EscrowShare{}, damaged(name, "its check sum is wrong: a character was mistyped, or it was damaged")
	}
	s := EscrowShare{
		Name: name, Threshold: int(front[0]), Index: int(front[1]), Total: int(front[2]), Set: hex.EncodeToString(front[3:19]),
		part: material.Share{X: front[1], Y: material.New(bytes.Clone(front[19:]))},
	}
	if material.CheckSplit(s.Threshold, s.Total) != nil || s.Index < 1 || s.Index > s.Total {
		s.Destroy()
		return EscrowShare{}, damaged(name, "its numbers can't be those of a share")
	}
	return s, nil
}

// shareBody is what follows the mark of a share.
func shareBody(name string, text []byte) ([]byte, error) {
	if len(text) > MaxShareText {
		return nil, shareFault(api.CodeInvalid, "reading %s: it is too large to be an escrow share", name)
	}
	var body []byte // its bytes stay in text, which is wiped
	for rest := text; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		trimmed := bytes.TrimLeft(line, " \t\r\ufeff")
		if len(trimmed) > 0 && trimmed[0] != '#' {
			body = rest[len(line)-len(trimmed):]
			break
		}
		rest = after
	}
	if len(body) < len(sharePrefix) || !bytes.EqualFold(body[:len(shareMark)], []byte(shareMark)) {
		return nil, shareFault(api.CodeInvalid, "reading %s: it isn't an escrow share", name).
			WithNext("a share's file begins, after lines with #, with " + sharePrefix)
	}
	if body[len(shareMark)] != '1' || len(body) > len(sharePrefix) && !isSeparator(body[len(sharePrefix)]) {
		return nil, shareFault(api.CodeInvalid, "reading %s: it is a share of a form that this keyturn doesn't know", name).
			WithNext("use the release of keyturn that made it, or a newer one")
	}
	body = body[len(sharePrefix):]
	blankComments(body)
	return body, nil
}

// blankComments overwrites lines that begin with #, which may stand between the others too.
func blankComments(b []byte) {
	comment, start := false, false // what follows the mark on its line is no comment
	for i, c := range b {
		switch {
		case c == '\n':
			comment, start = false, true
			continue
		case start && c == '#':
			comment = true
		}
		start = start && isSeparator(c)
		if comment {
			b[i] = ' '
		}
	}
}

// isSeparator: what may stand between the characters of a share.
func isSeparator(c byte) bool {
	return c == ' ' || c == '-' || c == '.' || c == '\n' || c == '\r' || c == '\t'
}

func putFiveBits(b []byte, i int, v byte) {
	at := i * 5
	two := uint16(v) << (11 - at%8)
	b[at/8] |= byte(two >> 8)
	if at/8+1 < len(b) {
		b[at/8+1] |= byte(two)
	}
}

func damaged(name, format string, args ...any) *fault.Error {
	return shareFault(api.CodeIntegrity, "reading %s: %s", name, fmt.Sprintf(format, args...)).
		WithNext("compare it with the paper, or bring another share of the set")
}
