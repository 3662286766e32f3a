package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/material"
)

// The vectors in testdata are frozen: they say what ciphertexts that people have stored look like. A test that fails here
// means that a change broke the format (P4); the change is wrong, not the file. New suites add files. Other
// implementations may use them: everything is in hexadecimal, integers are decimal, the context is a JSON object.

// hexBytes reads as hexadecimal in JSON.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vector is one frozen ciphertext with all that it was made from.
type vector struct {
	Name             string            `json:"name"`
	Suite            uint8             `json:"suite"`
	Material         hexBytes          `json:"material"`
	KeyID            hexBytes          `json:"keyId"`
	Version          uint32            `json:"version"`
	Purpose          string            `json:"purpose"`
	Context          map[string]string `json:"context"`
	CanonicalContext hexBytes          `json:"canonicalContext"`
	Plaintext        hexBytes          `json:"plaintext"`
	Salt             hexBytes          `json:"salt"`
	Nonce            hexBytes          `json:"nonce"` // the initialisation vector for suite 4
	OKM              hexBytes          `json:"okm"`
	Blob             hexBytes          `json:"blob"`
	Text             string            `json:"text"`
	PrefixText       string            `json:"prefixText"`
}

func (v vector) message() refMessage {
	return refMessage{key: v.Material, header: Header{Format, Suite(v.Suite), KeyID(v.KeyID), v.Version}, purpose: v.Purpose,
		context: v.CanonicalContext, salt: v.Salt, iv: v.Nonce, plaintext: v.Plaintext}
}

// derivation is one frozen derived key.
type derivation struct {
	Name     string            `json:"name"`
	Material hexBytes          `json:"material"`
	KeyID    hexBytes          `json:"keyId"`
	Version  uint32            `json:"version"`
	Purpose  string            `json:"purpose"`
	Label    string            `json:"label"`
	Context  map[string]string `json:"context"`
	Derived  hexBytes          `json:"derived"`
}

func readVectors[T any](t *testing.T, pattern string, least int) (all []T) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", pattern, err)
	}
	for _, file := range files {
		var vectors []T
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &vectors)
		}
		if err != nil || len(vectors) < least {
			t.Fatalf("%s: %d vectors, %v", file, len(vectors), err)
		}
		all = append(all, vectors...)
	}
	return all
}

// P4: what was sealed once keeps opening, and still looks the same from the outside.
func TestFrozenCiphertextsOpen(t *testing.T) {
	suites := map[Suite]int{}
	for _, v := range readVectors[vector](t, "testdata/suite*.json", 5) {
		suites[Suite(v.Suite)]++
		m := v.message()
		k := testKey(t, m.header.Suite, func(to *refMessage) { *to = m })
		c, err := NewContext(v.Context)
		if err != nil || !bytes.Equal(c, v.CanonicalContext) {
			t.Errorf("%s: the context is %x, %v", v.Name, c, err)
		}
		blob, err := AppendDecodedText(nil, []byte(v.Text))
		if err != nil || !bytes.Equal(blob, v.Blob) || string(AppendText(nil, v.Blob)) != v.Text {
			t.Errorf("%s: the text is another one: %v", v.Name, err)
		}
		if out, err := k.Open(nil, v.Blob, c); err != nil || !bytes.Equal(out, v.Plaintext) {
			t.Errorf("%s: opens to %x, %v", v.Name, out, err)
		}
		if got := k.Header().PrefixText(); got != v.PrefixText {
			t.Errorf("%s: the prefix is %s", v.Name, got)
		}
		if info, err := Inspect(v.Blob); err != nil || info.Header != m.header {
			t.Errorf("%s: inspected as %+v, %v", v.Name, info, err)
		}
	}
	for _, s := range sealing {
		if suites[s] == 0 {
			t.Errorf("no frozen ciphertext of suite %v", s)
		}
	}
}

// The derived key and the commitment, computed by the package's own steps and by the reference, are the frozen ones; so
// are the whole ciphertexts, which the reference makes from the frozen salts and nonces.
func TestFrozenDerivations(t *testing.T) {
	for _, v := range readVectors[vector](t, "testdata/suite*.json", 5) {
		m := v.message()
		if !bytes.Equal(m.okm(), v.OKM) || !bytes.Equal(m.seal(), v.Blob) {
			t.Errorf("%s: the reference makes other bytes", v.Name)
		}
		k := testKey(t, m.header.Suite, func(to *refMessage) { *to = m })
		_, s, err := k.begin(Context(v.CanonicalContext))
		if err != nil {
			t.Fatal(err)
		}
		label := labelAEAD
		if m.header.Suite == SuiteCBC {
			label = labelCBC
		}
		s.expand(k.info(s, label, v.Salt))
		if !bytes.Equal(s.okm[:], v.OKM) {
			t.Errorf("%s: the package derives %x", v.Name, s.okm)
		}
	}
	for _, d := range readVectors[derivation](t, "testdata/derive.json", 4) {
		c, err := NewContext(d.Context)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKey(KeyID(d.KeyID), d.Version, SuiteStandard, d.Purpose, material.New(bytes.Clone(d.Material)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.AppendDerived(nil, d.Label, c, len(d.Derived)); err != nil || !bytes.Equal(got, d.Derived) {
			t.Errorf("%s: derived %x, %v", d.Name, got, err)
		}
	}
}
