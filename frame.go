package keyturn

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The spelling of a frame; Envelope's comment has the format.
const (
	frameMagic   = "kte1."
	wrappedMagic = "kt1."
)

// maxWrapped bounds W in characters: a data key under the longest suite is well below it.
const maxWrapped = 1024

// frame64 refuses stray bits in the last character, so that a message has one spelling only.
var frame64 = base64.RawURLEncoding.Strict()

// errFrame has one text for every reason, as errors of opening have.
var errFrame = fault.New(api.CodeIntegrity, "reading a sealed message: it isn't one of an envelope, or it was changed or cut short").
	WithField("ciphertext")

// framePrefix is everything before B, made once per data key of its kt1. text.
func framePrefix(wrapped string) ([]byte, error) {
	w, ok := strings.CutPrefix(wrapped, wrappedMagic)
	if !ok || w == "" || len(w) > maxWrapped || !isBase64URL(w) {
		return nil, fault.New(api.CodeInternal, "reading the server's data key: its sealed form isn't a kt1. text")
	}
	return []byte(frameMagic + w + "."), nil
}

// appendFrame appends prefix and B.
func appendFrame(dst, prefix, blob []byte) []byte {
	dst = slices.Grow(dst, len(prefix)+frame64.EncodedLen(len(blob)))
	return frame64.AppendEncode(append(dst, prefix...), blob)
}

// cutFrame takes a frame apart into W and B, both still encoded and unchecked.
func cutFrame(text string) (wrapped, body string, err error) {
	rest, ok := strings.CutPrefix(text, frameMagic)
	if !ok {
		return "", "", errFrame
	}
	wrapped, body, ok = strings.Cut(rest, ".")
	if !ok || wrapped == "" || len(wrapped) > maxWrapped {
		return "", "", errFrame
	}
	return wrapped, body, nil
}

// appendBody appends the binary form of B.
func appendBody(dst []byte, body string) ([]byte, error) {
	if strings.IndexByte(body, '\n') >= 0 || strings.IndexByte(body, '\r') >= 0 {
		return nil, errFrame // the decoder skips line breaks
	}
	n := frame64.DecodedLen(len(body))
	dst = slices.Grow(dst, n)
	m, err := frame64.Decode(dst[len(dst):len(dst)+n], []byte(body))
	if err != nil {
		return nil, errFrame
	}
	return dst[:len(dst)+m], nil
}

// unwrappable is the kt1. text of W, once it is fit to be sent; its strict spelling is the server's to check.
func unwrappable(wrapped string) (string, error) {
	if !isBase64URL(wrapped) {
		return "", errFrame
	}
	return wrappedMagic + wrapped, nil
}

func isBase64URL(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
