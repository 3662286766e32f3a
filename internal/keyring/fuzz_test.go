package keyring_test

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// FuzzKeyText: whatever is accepted is 32 bytes, prints as a text that is read back to the same, and was wiped; the
// rest is refused with one code.
func FuzzKeyText(f *testing.F) {
	f.Add([]byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"))
	f.Add([]byte(" _-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-8\r\n"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		given := bytes.Clone(text)
		m, err := keyring.ParseKeyText(given)
		if !bytes.Equal(given, make([]byte, len(given))) {
			t.Fatal("the text wasn't wiped")
		}
		if err != nil {
			if m != nil || fault.CodeOf(err) != api.CodeInvalid {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again, err := keyring.ParseKeyText(keyring.AppendText(nil, m))
		if err != nil || m.Len() != 32 || !again.Equal(m) {
			t.Fatalf("%q is accepted but not read back: %v", text, err)
		}
	})
}
