package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The forms in which people have keys. auto finds out which of the first three it is, by what can be told for sure: the
// lengths of the three never meet.
const (
	formAuto   = "auto"
	formRaw    = "raw"
	formBase64 = "base64"
	formHex    = "hex"
	formFernet = "fernet"
	formText   = "text" // of passwords: the characters themselves, without the line's end
)

// parseMaterial reads 32 bytes of key material in whatever form, for the callers that don't ask which.
func parseMaterial(b []byte) ([]byte, error) {
	key, _, err := parseKey(b, formAuto, "material", 32)
	return key, err
}

// parseKey reads a key of one of some sizes, and says what it was read as. field names the flag or field at fault. Errors
// quote nothing.
func parseKey(b []byte, form, field string, sizes ...int) (key []byte, as string, err error) {
	trimmed := bytes.TrimSpace(b)
	fits := func(k []byte, ok bool) bool { return ok && slices.Contains(sizes, len(k)) }
	switch form {
	case formAuto, "":
		return recognise(b, trimmed, field, sizes)
	case formRaw:
		if fits(b, true) {
			as := fmt.Sprintf("%d raw bytes", len(b))
			if isPrintable(b) {
				as += "; all of them are printable characters: if this is a password, or hexadecimal digits, it is weaker than a key should be"
			}
			return bytes.Clone(b), as, nil
		}
	case formHex:
		if k, ok := unhex(trimmed); fits(k, ok) {
			return k, fmt.Sprintf("hexadecimal, %d digits", len(trimmed)), nil
		}
	case formBase64:
		if k, ok := unbase64(trimmed); fits(k, ok) {
			return k, fmt.Sprintf("base64, %d characters", len(trimmed)), nil
		}
	case formFernet:
		k, err := base64.URLEncoding.Strict().DecodeString(string(trimmed))
		if err == nil && len(k) == 32 && !bytes.ContainsAny(trimmed, "\r\n") {
			return k, "a Fernet key, 44 characters", nil
		}
		return nil, "", usage(field, "reading a key: it isn't a Fernet key, which is 32 bytes in base64 of the URL alphabet with its padding, 44 characters").
			WithNext("leave the form away to have it recognised")
	default:
		return nil, "", usage("format", "reading a key: there is no such form").WithNext("use auto, raw, base64, hex or fernet")
	}
	return nil, "", usage(field, "reading a key: it isn't %s bytes in the form %s", orOf(sizes), form).WithNext("leave the form away to have it recognised, or see --help")
}

// recognise tells the forms apart. Text is never taken for raw bytes: 32 characters are a password, or fewer random bytes
// in some encoding.
func recognise(b, trimmed []byte, field string, sizes []int) ([]byte, string, error) {
	if !isPrintable(trimmed) {
		if slices.Contains(sizes, len(b)) {
			return bytes.Clone(b), fmt.Sprintf("%d raw bytes", len(b)), nil
		}
	} else if k, ok := unhex(trimmed); ok && slices.Contains(sizes, len(k)) {
		return k, fmt.Sprintf("hexadecimal, %d digits", len(trimmed)), nil
	} else if k, ok := unbase64(trimmed); ok && slices.Contains(sizes, len(k)) {
		return k, fmt.Sprintf("base64, %d characters", len(trimmed)), nil
	} else if slices.Contains(sizes, len(trimmed)) {
		return nil, "", usage(field, "reading a key: it is %d characters of text, neither raw bytes nor base64 nor hexadecimal", len(trimmed)).
			WithNext("if these characters are the key themselves, say so with the form raw")
	}
	return nil, "", usage(field, "reading a key: it is neither %s raw bytes nor so many in base64 or in hexadecimal", orOf(sizes)).
		WithNext("give the key itself, or say in which form it is")
}

func isPrintable(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r > '~' })
}

func unhex(text []byte) ([]byte, bool) {
	k, err := hex.DecodeString(string(text))
	return k, err == nil
}

// unbase64 reads either alphabet, padded or not, and nothing that two readers could take differently.
func unbase64(text []byte) ([]byte, bool) {
	if bytes.ContainsAny(text, "\r\n") { // which encoding/base64 would skip
		return nil, false
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		if k, err := enc.Strict().DecodeString(string(text)); err == nil {
			return k, true
		}
	}
	return nil, false
}

func orOf(sizes []int) string {
	parts := make([]string, len(sizes))
	for i, n := range sizes {
		parts[i] = fmt.Sprint(n)
	}
	return strings.Join(parts, " or ")
}
