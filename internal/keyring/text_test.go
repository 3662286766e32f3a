package keyring_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// 32 bytes whose base64 needs the two characters in which the alphabets differ.
var sample = append(bytes.Repeat([]byte{0xfb, 0xff}, 15), 'x', 'y')

func TestParseKeyText(t *testing.T) {
	std, url := base64.StdEncoding.EncodeToString(sample), base64.URLEncoding.EncodeToString(sample)
	if !strings.ContainsAny(std, "+/") || len(std) != 44 {
		t.Fatal("the sample doesn't tell the alphabets apart")
	}
	for name, text := range map[string]string{
		"openssl rand -base64 32": std + "\n", "Fernet": url, "standard, no padding": strings.TrimRight(std, "="), "url, no padding": strings.TrimRight(url, "="),
		"CRLF": std + "\r\n", "spaces around": "  " + url + "\t\n\n",
	} {
		b := []byte(text)
		m, err := keyring.ParseKeyText(b)
		if err != nil || !bytes.Equal(m.Expose(), sample) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s: the text wasn't wiped", name)
		}
	}
	m := material.Random(32)
	if back, err := keyring.ParseKeyText(keyring.AppendText(nil, m)); err != nil || !back.Equal(m) {
		t.Errorf("what AppendText prints isn't read: %v", err)
	}
}

// P3: what isn't a key is refused without being quoted.
func TestParseKeyTextRefuses(t *testing.T) {
	std := base64.StdEncoding.EncodeToString(sample)
	for name, text := range map[string]string{
		"nothing": "", "spaces": " \n", "31 bytes": base64.StdEncoding.EncodeToString(sample[:31]), "33 bytes": base64.StdEncoding.EncodeToString(append(sample[:32:32], 1)),
		"64 bytes": base64.StdEncoding.EncodeToString(append(sample[:32:32], sample...)), "hexadecimal": hex.EncodeToString(sample), "raw": string(sample),
		"alphabets mixed": std[:40] + "-_" + std[42:], "a line break inside": std[:20] + "\n" + std[20:], "a space inside": std[:20] + " " + std[20:],
		"stray bits": std[:42] + "l=", "too much padding": std + "=", "two keys": std + "\n" + std, "a quoted key": `"` + std + `"`, "a name before it": "KEY=" + std,
		"all zero": base64.StdEncoding.EncodeToString(make([]byte, 32)), "all the same": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'A'}, 32)),
	} {
		m, err := keyring.ParseKeyText([]byte(text))
		if m != nil || fault.CodeOf(err) != api.CodeInvalid || fault.NextOf(err) == "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("%s: the error quotes it: %v", name, err)
		}
	}
}
