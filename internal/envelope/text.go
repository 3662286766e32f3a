package envelope

import (
	"bytes"
	"encoding/base64"
	"slices"
)

// textMagic begins every text ciphertext.
const textMagic = "kt1."

// text64 is base64url without padding that refuses stray bits in the last character (RFC 4648 section 3.5). It still
// skips line breaks, which AppendDecodedText refuses itself.
var text64 = base64.RawURLEncoding.Strict()

// AppendText appends the text form of a binary ciphertext: "kt1." and base64url without padding (RFC 4648 section 5).
func AppendText(dst, blob []byte) []byte {
	dst = slices.Grow(dst, TextLen(len(blob)))
	return text64.AppendEncode(append(dst, textMagic...), blob)
}

// TextLen is the length of the text form of a binary ciphertext of n bytes.
func TextLen(n int) int { return len(textMagic) + text64.EncodedLen(n) }

// AppendDecodedText appends the binary form of a text ciphertext. It is strict: whatever it accepts, AppendText gives
// back to the byte, so a ciphertext has one spelling only. It doesn't look at the decoded bytes; Open and Inspect do.
// On failure it returns the integrity error and dst is as it was.
func AppendDecodedText(dst, text []byte) ([]byte, error) {
	body, ok := bytes.CutPrefix(text, []byte(textMagic))
	if !ok || bytes.IndexByte(body, '\n') >= 0 || bytes.IndexByte(body, '\r') >= 0 {
		return nil, errMalformed
	}
	out, err := text64.AppendDecode(dst, body)
	if err != nil {
		return nil, errMalformed
	}
	return out, nil
}

// LooksLikeCiphertext reports whether a value begins as our ciphertexts do, in text or in binary form, so that a census
// tells it from plaintext. It stays true for one that was cut short or changed further on: such a value is unreadable,
// which is not the same as never having been encrypted. Text that merely mentions "kt1." is not ours: all that follows
// in the place of the header must be base64url.
func LooksLikeCiphertext(value []byte) bool {
	if body, ok := bytes.CutPrefix(value, []byte(textMagic)); ok {
		body = body[:min(len(body), PrefixLen-len(textMagic))]
		return !slices.ContainsFunc(body, func(c byte) bool { return !isBase64URL(c) })
	}
	return len(value) > 2 && value[0] == 'K' && value[1] == 'T' && value[2] == Format
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
