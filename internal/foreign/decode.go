package foreign

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
)

// The encodings in which a message can stand in a column.
const (
	encodingAuto   = "auto"
	encodingRaw    = "raw"
	encodingBase64 = "base64"
	encodingHex    = "hex"
)

// unpack finds the bytes of a message in a value: the first decoding whose result fits. A column of bytes holds the
// message itself or its text, one of characters its text only.
func (o *Opener) unpack(value []byte, text bool, fits func([]byte) bool) ([]byte, bool) {
	var order []string
	switch o.src.Encoding {
	case "", encodingAuto:
		switch {
		case text:
			order = []string{encodingHex, encodingBase64}
		case o.marked:
			order = []string{encodingRaw, encodingHex, encodingBase64}
		default: // without a mark, bytes that happen to be letters can't be told from text
			order = []string{encodingRaw}
		}
	default:
		order = []string{o.src.Encoding}
	}
	for _, encoding := range order {
		if raw, ok := decode(value, encoding); ok && fits(raw) {
			return raw, true
		}
	}
	return nil, false
}

func decode(value []byte, encoding string) ([]byte, bool) {
	switch encoding {
	case encodingHex:
		return decodeHex(bytes.TrimSpace(value))
	case encodingBase64:
		return decodeBase64(bytes.TrimSpace(value))
	}
	return value, true
}

// decodeHex reads hexadecimal digits, with or without the \x that PostgreSQL puts in front.
func decodeHex(text []byte) ([]byte, bool) {
	text = bytes.TrimPrefix(text, []byte(`\x`))
	out := make([]byte, hex.DecodedLen(len(text)))
	_, err := hex.Decode(out, text)
	return out, err == nil
}

// decodeBase64 reads either alphabet, padded or not, in lines of any length: openssl and PostgreSQL break them.
func decodeBase64(text []byte) ([]byte, bool) {
	text = bytes.Join(bytes.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), nil)
	return decodeBase64Line(text, bytes.ContainsAny(text, "-_"))
}

// decodeBase64Line reads one alphabet, padded or not, without line breaks and stray bits.
func decodeBase64Line(text []byte, url bool) ([]byte, bool) {
	if bytes.ContainsAny(text, "\r\n") { // which encoding/base64 would skip
		return nil, false
	}
	body := bytes.TrimRight(text, "=")
	if pad := len(text) - len(body); pad > 2 || pad > 0 && len(text)%4 != 0 {
		return nil, false
	}
	encoding := base64.RawStdEncoding.Strict()
	if url {
		encoding = base64.RawURLEncoding.Strict()
	}
	out, err := encoding.AppendDecode(nil, body)
	return out, err == nil
}

// missed is the verdict on a value in which no message was found.
func missed(looksLike bool) (message, Verdict) {
	if looksLike {
		return message{}, Malformed
	}
	return message{}, NotForeign
}
