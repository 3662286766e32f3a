package material

import (
	"bytes"
	"encoding/hex"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// table is GF(2^8) by logarithms: another way to the same field, for comparison.
var table = func() (t struct{ exp, log [256]int }) {
	x := 1
	for i := range 255 {
		t.exp[i], t.log[x] = x, i
		if x ^= x << 1; x > 255 { // times 3, which generates the field
			x ^= 0x11b
		}
	}
	return t
}()

func slowMul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return byte(table.exp[(table.log[a]+table.log[b])%255])
}

// All 65,536 products against logarithms, all inverses, and the examples of FIPS 197 sections 4.2 and 4.2.1.
func TestField(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			if got, want := gfMul(byte(a), byte(b)), slowMul(byte(a), byte(b)); got != want {
				t.Fatalf("%02x times %02x is %02x, want %02x", a, b, got, want)
			}
		}
		if one := gfMul(byte(a), gfInv(byte(a))); a != 0 && one != 1 {
			t.Errorf("%02x times its inverse is %02x", a, one)
		}
	}
	if gfInv(0) != 0 || gfMul(0x57, 0x83) != 0xc1 || gfMul(0x57, 0x13) != 0xfe {
		t.Error("the field isn't that of AES")
	}
}

// Shares that were made by hand: the polynomial 0x2a + 0x17 x + 0x99 x^2.
func TestCombineKnownShares(t *testing.T) {
	share := func(x byte) Share {
		return Share{x, New([]byte{0x2a ^ slowMul(0x17, x) ^ slowMul(0x99, slowMul(x, x))})}
	}
	for _, xs := range [][]byte{{1, 2, 3}, {3, 1, 2}, {7, 255, 128}, {1, 2, 3, 4, 5}} {
		var shares []Share
		for _, x := range xs {
			shares = append(shares, share(x))
		}
		if m, err := Combine(shares); err != nil || !bytes.Equal(m.Expose(), []byte{0x2a}) {
			t.Errorf("%v: %v, %v", xs, m.Len(), err)
		}
	}
}

// Any threshold of the shares give the secret back, in any order, and so do more of them.
func TestSplitAndCombine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := New(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "secret"))
		before := secret.Clone()
		threshold := rapid.IntRange(MinThreshold, MaxThreshold).Draw(t, "threshold")
		total := rapid.IntRange(threshold, MaxShares).Draw(t, "total")
		shares, err := Split(secret, threshold, total)
		if err != nil || len(shares) != total || !secret.Equal(before) {
			t.Fatalf("%d shares, %v", len(shares), err)
		}
		some := rapid.Permutation(shares).Draw(t, "order")[:rapid.IntRange(threshold, total).Draw(t, "brought")]
		if got, err := Combine(some); err != nil || !got.Equal(secret) {
			t.Fatalf("%d of %d shares, threshold %d: %v", len(some), total, threshold, err)
		}
	})
}

// One share less than the threshold tells nothing: for whatever secret one guesses there is exactly one further share
// that would make it true, so the shares in hand fit every secret alike. Shown for every value of a byte.
func TestTooFewSharesFitEverySecret(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		threshold := rapid.IntRange(MinThreshold, MaxThreshold).Draw(t, "threshold")
		shares, err := Split(New([]byte{rapid.Byte().Draw(t, "secret")}), threshold, threshold)
		if err != nil {
			t.Fatal(err)
		}
		fits := map[byte]int{}
		for y := range 256 {
			guess := append(slices.Clone(shares[:threshold-1]), Share{byte(threshold), New([]byte{byte(y)})})
			m, err := Combine(guess)
			if err != nil {
				t.Fatal(err)
			}
			fits[m.Expose()[0]]++
		}
		if len(fits) != 256 {
			t.Fatalf("only %d secrets are possible", len(fits))
		}
	})
}

// A single share's bytes are spread evenly whatever the secret: chi-square over 256 classes, so far from its mean of 255
// (five standard deviations) that chance does it once in a million runs.
func TestSharesAreEven(t *testing.T) {
	const n = 64 << 10
	for _, secret := range []byte{0, 0xff} {
		shares, err := Split(New(bytes.Repeat([]byte{secret}, n)), 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range shares {
			var count [256]float64
			for _, b := range s.Y.Expose() {
				count[b]++
			}
			chi := 0.0
			for _, c := range count {
				chi += (c - n/256) * (c - n/256) / (n / 256)
			}
			if chi > 255+5*22.6 || chi < 255-5*22.6 {
				t.Errorf("share %d of %02x: chi-square %.0f", s.X, secret, chi)
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		secret           *Bytes
		threshold, total int
		field            string
	}{
		"threshold 1": {Random(32), 1, 3, "threshold"}, "threshold 0": {Random(32), 0, 3, "threshold"}, "threshold 17": {Random(32), 17, 20, "threshold"},
		"fewer than the threshold": {Random(32), 3, 2, "shares"}, "too many": {Random(32), 3, 65, "shares"}, "negative": {Random(32), 2, -1, "shares"},
		"no secret": {New(nil), 2, 3, ""},
	} {
		shares, err := Split(c.secret, c.threshold, c.total)
		if shares != nil || fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != c.field {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCombineRefuses(t *testing.T) {
	one, two := Share{1, Random(32)}, Share{2, Random(32)}
	for what, shares := range map[string][]Share{
		"none": nil, "one": {one}, "the same twice": {one, two, one}, "the same place twice": {one, {1, Random(32)}},
		"place zero": {one, {0, Random(32)}}, "another length": {one, {2, Random(31)}}, "empty": {{1, New(nil)}, {2, New(nil)}}, "destroyed": {one, {2, nil}},
	} {
		if m, err := Combine(shares); m != nil || fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzCombine: whatever is given, no panic, and what comes out is as long as what went in.
func FuzzCombine(f *testing.F) {
	f.Add([]byte{1, 0xaa, 2, 0xbb}, 1)
	f.Add([]byte{1, 1, 2, 2, 1, 2}, 2)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		if n < 0 || n > 64 {
			return
		}
		var shares []Share
		for ; len(raw) > n; raw = raw[n+1:] {
			shares = append(shares, Share{raw[0], New(bytes.Clone(raw[1 : n+1]))})
		}
		m, err := Combine(shares)
		if err == nil && m.Len() != n {
			t.Errorf("%d bytes of shares of %d: %s", m.Len(), n, hex.EncodeToString(raw))
		}
	})
}

// CVE-2023-25000 (row 23): shares were multiplied by tables, and the cache told which lines were read. Here the field has
// no table at all: gfMul, gfInv and mulAdd hold no branch, and nothing is found by a byte of a secret. The clock is asked
// in TestCampaignShamirTiming.
func TestAdvisory_CVE_2023_25000(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "shamir.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			if g := d.(*ast.GenDecl); g.Tok == token.VAR {
				t.Error("shamir.go has variables: a table?")
			}
			continue
		}
		if !slices.Contains([]string{"gfMul", "gfInv", "mulAdd"}, fn.Name.Name) {
			continue
		}
		checked++
		for _, what := range branchesAndLookups(fn) {
			t.Errorf("%s: %s", fn.Name.Name, what)
		}
	}
	if checked != 3 {
		t.Errorf("found %d of the field's functions", checked)
	}
	leaky := `package p; func f(a, b byte) byte { if a == 0 { return 0 }; x := a > b && b > 1; switch a {}; return exp[log[a]+log[b]] }`
	file, err = parser.ParseFile(token.NewFileSet(), "", leaky, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(branchesAndLookups(file.Decls[0].(*ast.FuncDecl))); n < 6 {
		t.Errorf("%d findings in a function that leaks in every way", n)
	}
}

// branchesAndLookups finds what may take another time, or another place in memory, for another byte: anything but loops
// of a fixed number and elements by the loop's own counter.
func branchesAndLookups(fn *ast.FuncDecl) (found []string) {
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt, *ast.SwitchStmt, *ast.ForStmt, *ast.SelectStmt, *ast.BranchStmt:
			found = append(found, "a branch")
		case *ast.BinaryExpr:
			if slices.Contains([]token.Token{token.LAND, token.LOR, token.EQL, token.NEQ, token.LSS, token.GTR, token.LEQ, token.GEQ, token.QUO, token.REM}, n.Op) {
				found = append(found, "the operator "+n.Op.String())
			}
		case *ast.IndexExpr:
			if id, ok := n.Index.(*ast.Ident); !ok || id.Name != "i" {
				found = append(found, "a lookup")
			}
		}
		return true
	})
	return found
}
