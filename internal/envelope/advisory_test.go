package envelope

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// CVE-2023-2197 (row 21): a padding oracle on CBC. A hundred thousand changed ciphertexts, most of them with the change
// in the last two blocks where padding lives, all give one error text; and padding that is wrong under a right MAC, which
// only somebody with the key can make, gives the same one. (TestCampaignCBCTiming looks at the clock.)
func TestAdvisory_CVE_2023_2197(t *testing.T) {
	k := testKey(t, SuiteCBC)
	blob := mustSeal(t, k, bytes.Repeat([]byte("x"), 40), nil)
	texts := map[string]int{}
	changed := make([]byte, len(blob))
	for i := range 100_000 {
		copy(changed, blob)
		changed[len(blob)-1-rand.IntN(80)] ^= byte(1 + i%255)
		out, err := k.Open(nil, changed, nil)
		if err == nil || out != nil {
			t.Fatal("a changed ciphertext opens")
		}
		texts[err.Error()]++
	}
	for last := range 256 {
		for _, before := range []byte{0, byte(last)} {
			plain := bytes.Repeat([]byte{before}, 31)
			_, err := k.Open(nil, withPadding(append(plain, byte(last))), nil)
			if valid := last == 1 || before == byte(last) && last >= 1 && last <= 16; valid != (err == nil) {
				t.Errorf("padding that ends %d %d: %v", before, last, err)
			} else if err != nil {
				texts[err.Error()]++
			}
		}
	}
	if len(texts) != 1 {
		t.Errorf("%d different error texts: %v", len(texts), texts)
	}
}

// withPadding makes a ciphertext with a right MAC from whole blocks whose padding may be wrong.
func withPadding(blocks []byte) []byte {
	m := refMessage{key: testMaterial, header: Header{Format, SuiteCBC, testID, 7}, purpose: "phi", context: emptyContext,
		salt: make([]byte, 32), iv: make([]byte, 16)}
	okm := m.okm()
	ct := refCBC(okm[:32], m.iv, blocks)
	input := slices.Concat(m.aad(), m.salt, m.iv, ct)
	return slices.Concat(m.headerBytes(), m.salt, m.iv, ct, refHMAC256(okm[32:], appendBitLen(input, len(m.aad()))))
}

// CVE-2023-4680 (row 24): a caller could choose the GCM nonce. Here no function takes one, and what is drawn never
// repeats.
func TestAdvisory_CVE_2023_4680(t *testing.T) {
	chosen := regexp.MustCompile(`(?i)nonce|^iv$|salt|random|rand$|reader`)
	functions := exportedFunctions(t)
	for _, f := range functions {
		for _, param := range f.Type.Params.List {
			for _, name := range param.Names {
				if chosen.MatchString(name.Name) {
					t.Errorf("%s takes %s: no caller chooses it", f.Name.Name, name.Name)
				}
			}
		}
	}
	if len(functions) < 20 {
		t.Errorf("only %d exported functions seen", len(functions))
	}
	for _, s := range sealing {
		k, p, seen := testKey(t, s), s.shape(), map[string]bool{}
		for range 10_000 {
			blob := mustSeal(t, k, []byte("the same"), nil)
			salt, iv := string(blob[HeaderSize:HeaderSize+p.salt]), string(blob[HeaderSize+p.salt+p.com:][:p.iv])
			if seen[salt] || seen[iv] {
				t.Fatalf("%v: a salt or nonce came twice", s)
			}
			seen[salt], seen[iv] = true, true
		}
	}
}

// exportedFunctions are the package's functions and methods that others can call.
func exportedFunctions(t *testing.T) (functions []*ast.FuncDecl) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.IsExported() {
				functions = append(functions, f)
			}
		}
	}
	return functions
}

// CVE-2020-8911, CVE-2020-8912, CVE-2022-2582 (row 66): CBC without a MAC, an algorithm field that nothing authenticated,
// a hash of the plaintext beside the ciphertext. Here every bit of the header counts even for somebody who can rewrite
// the rest of the derivation's public inputs, no suite can be turned into another, and nothing but the sealed part
// depends on the plaintext.
func TestAdvisory_CVE_2020_8911(t *testing.T) {
	plain := []byte("a plaintext that is hashed below, 078-05-1120")
	for _, s := range sealing {
		k, p := testKey(t, s), s.shape()
		blob := mustSeal(t, k, plain, nil)
		for bit := range HeaderSize * 8 {
			changed := bytes.Clone(blob)
			changed[bit/8] ^= 1 << (bit % 8)
			refuses(t, fmt.Sprintf("%v, header bit %d", s, bit), k, changed, nil)
			if h, err := parseHeader(changed); err == nil && h.Suite.shape().messages { // and under a key that expects that header
				other := testKey(t, h.Suite, func(m *refMessage) { m.header = h })
				refuses(t, fmt.Sprintf("%v, header bit %d, under a key with that header", s, bit), other, changed, nil)
			}
		}
		short, long := sha256.Sum256(plain), sha512.Sum512(plain)
		for _, hash := range [][]byte{short[:8], short[24:], long[:8], long[56:]} {
			if bytes.Contains(blob, hash) {
				t.Errorf("%v: a hash of the plaintext stands in the ciphertext", s)
			}
		}
		m := refMessage{key: testMaterial, header: k.Header(), purpose: "phi", context: emptyContext, salt: bytes.Repeat([]byte{1}, p.salt), iv: bytes.Repeat([]byte{2}, p.iv)}
		front := HeaderSize + p.salt + p.com + p.iv
		m.plaintext = bytes.Repeat([]byte{1}, 32)
		first := m.seal()[:front]
		m.plaintext = bytes.Repeat([]byte{2}, 32)
		if !bytes.Equal(first, m.seal()[:front]) {
			t.Errorf("%v: what stands before the ciphertext depends on the plaintext", s)
		}
	}
}
