package keyring

import (
	"bytes"
	"encoding/base64"
	"unicode"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// encodings are the forms in which people have a 32-byte key: `openssl rand -base64 32` and Fernet's (which are padded),
// and both without padding. Strict: one key has one spelling in each.
var encodings = []*base64.Encoding{
	base64.StdEncoding.Strict(), base64.URLEncoding.Strict(), base64.RawStdEncoding.Strict(), base64.RawURLEncoding.Strict(),
}

// ParseKeyText reads a 32-byte key in base64 with either alphabet, padded or not, with white space around it as files and
// variables tend to have. It wipes text. Errors are of code invalid and never quote it.
func ParseKeyText(text []byte) (*material.Bytes, error) {
	defer clear(text)
	trimmed := bytes.TrimFunc(text, unicode.IsSpace)
	if bytes.ContainsAny(trimmed, "\r\n") { // which encoding/base64 would skip
		trimmed = nil
	}
	for _, encoding := range encodings {
		out := make([]byte, encoding.DecodedLen(len(trimmed)))
		n, err := encoding.Decode(out, trimmed)
		if err != nil || n != envelope.KeySize {
			clear(out)
			continue
		}
		if allTheSame(out[:n]) {
			clear(out)
			return nil, fault.New(api.CodeInvalid, "reading a key: its bytes are all the same, so nobody drew it at random").
				WithNext("make one with keyturn master generate")
		}
		return material.New(out[:n:n]), nil
	}
	return nil, fault.New(api.CodeInvalid, "reading a key: it must be 32 bytes in base64").
		WithNext("make one with keyturn master generate, or openssl rand -base64 32")
}

// AppendText appends the key in padded standard base64, the form that ParseKeyText reads first. It is the one way by
// which material leaves as text: a new master key that somebody asked for, an export, a data key.
func AppendText(dst []byte, m *material.Bytes) []byte {
	return base64.StdEncoding.AppendEncode(dst, m.Expose())
}

func allTheSame(b []byte) bool {
	return bytes.Count(b, b[:1]) == len(b)
}
