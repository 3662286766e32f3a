package keyring_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// frozenShares are shares as they lie in people's safes; never to be regenerated. Any two give the key of TestFrozenWrapping.
var frozenShares = []string{
	`# keyturn escrow share 1 of 3. Any 2 of them together open the store; fewer tell nothing.
# Set 5e475b4556814c694083e00d79498c65. Keep it closed, and away from the others and from the store.
# To check it: keyturn escrow verify --share-file FILE
kt-share1
080G-6QJ7-BD2N-D0AC-D508-7R0D
F54R-RSEX-GDSW-6SAM-DKES-WM2T
SQ8Q-7J35-5W6N-GGRW-2WPA-8ER6
A3NQ-VVNX-G8DS-XW3H
`,
	`# keyturn escrow share 2 of 3. Any 2 of them together open the store; fewer tell nothing.
# Set 5e475b4556814c694083e00d79498c65. Keep it closed, and away from the others and from the store.
# To check it: keyturn escrow verify --share-file FILE
kt-share1
0810-6QJ7-BD2N-D0AC-D508-7R0D
F54R-RS9X-MN4Z-TZ8B-9MYR-GDPM
7GB6-VTVV-YHX1-7SMJ-Q3MX-VPDY
R1C6-CXQQ-P29Q-H342
`,
	`# keyturn escrow share 3 of 3. Any 2 of them together open the store; fewer tell nothing.
# Set 5e475b4556814c694083e00d79498c65. Keep it closed, and away from the others and from the store.
# To check it: keyturn escrow verify --share-file FILE
kt-share1
081G-6QJ7-BD2N-D0AC-D508-7R0D
F54R-RSCM-9SFH-WX9Y-AAA7-655E
KAH6-E0VH-QNBJ-N1F8-VPN0-71YP
P306-ZXSR-AZ1Z-1JXG
`,
}

// split makes shares of a random key.
func split(t testing.TB, threshold, total int) (*material.Bytes, []keyring.EscrowShare) {
	t.Helper()
	m := material.Random(32)
	shares, err := keyring.SplitKey(m, threshold, total)
	if err != nil {
		t.Fatal(err)
	}
	for i := range shares {
		shares[i].Name = fmt.Sprintf("share-%d", i+1)
	}
	return m, shares
}

func parse(t testing.TB, name, text string) keyring.EscrowShare {
	t.Helper()
	s, err := keyring.ParseEscrowShare(name, []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// P4: what was printed once is read for ever.
func TestFrozenShares(t *testing.T) {
	var shares []keyring.EscrowShare
	for i, text := range frozenShares {
		s := parse(t, "frozen", text)
		if s.Set != frozenFingerprint || s.Threshold != 2 || s.Index != i+1 || s.Total != 3 {
			t.Errorf("share %d reads as %d of %d, threshold %d, set %s", i+1, s.Index, s.Total, s.Threshold, s.Set)
		}
		if string(s.AppendText(nil)) != text {
			t.Errorf("share %d prints as another text than it was read from", i+1)
		}
		shares = append(shares, s)
	}
	m, err := keyring.CombineShares(shares[1:])
	if err != nil || string(m.Expose()) != "the master key of a frozen store" {
		t.Errorf("the frozen shares don't combine: %v", err)
	}
}

// Any threshold of shares, in any order, through their text, give the key; one less doesn't, whatever is tried.
func TestSharesCombine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		threshold := rapid.IntRange(2, 16).Draw(rt, "threshold")
		total := rapid.IntRange(threshold, 64).Draw(rt, "total")
		m, shares := split(t, threshold, total)
		order := rapid.Permutation(shares).Draw(rt, "order")
		var read []keyring.EscrowShare
		for _, s := range order {
			read = append(read, parse(t, s.Name, string(s.AppendText(nil))))
		}
		n := rapid.IntRange(threshold, total).Draw(rt, "brought")
		if got, err := keyring.CombineShares(read[:n]); err != nil || !got.Equal(m) {
			rt.Fatalf("%d shares of threshold %d: %v", n, threshold, err)
		}
		few := read[:threshold-1]
		if got, err := keyring.CombineShares(few); got != nil || fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldShare {
			rt.Fatalf("%d shares of threshold %d: %v", len(few), threshold, err)
		}
		// Nor by claiming a lower threshold: the sum and the set fit, the key does not.
		if threshold > 2 {
			var lying []keyring.EscrowShare
			for _, s := range few {
				s.Threshold = 2
				lying = append(lying, s)
			}
			if got, err := keyring.CombineShares(lying); got != nil || fault.CodeOf(err) != api.CodeIntegrity {
				rt.Fatalf("too few shares that claim to be enough: %v", err)
			}
		}
	})
}

// Errors say which shares and what to do, and never what is in them.
func TestCombineNamesTheShares(t *testing.T) {
	_, a := split(t, 3, 5)
	_, b := split(t, 3, 5)
	twin := a[0]
	twin.Name = "copy-of-1"
	text := string(a[1].AppendText(nil))
	liar := relabel(t, a[1], 4) // carries another's bytes under its own number
	for what, c := range map[string]struct {
		shares []keyring.EscrowShare
		code   api.Code
		says   []string
	}{
		"none":            {nil, api.CodeInvalid, []string{"none"}},
		"too few":         {a[:2], api.CodeInvalid, []string{"2 of the 3"}},
		"two sets":        {[]keyring.EscrowShare{a[0], a[1], b[2]}, api.CodeInvalid, []string{"share-1", "share-3", "two different sets"}},
		"the same twice":  {[]keyring.EscrowShare{a[0], a[1], twin}, api.CodeInvalid, []string{"share-1", "copy-of-1", "the same share"}},
		"one that lies":   {[]keyring.EscrowShare{a[0], a[1], liar}, api.CodeIntegrity, []string{"one of them isn't what it says"}},
		"a fourth lies":   {[]keyring.EscrowShare{a[0], a[1], a[2], liar}, api.CodeIntegrity, []string{"one of them isn't what it says"}},
		"two of a number": {[]keyring.EscrowShare{a[3], liar, a[0]}, api.CodeIntegrity, []string{"both share 4"}},
		"other numbers":   {[]keyring.EscrowShare{a[0], a[1], {Name: "odd", Set: a[0].Set, Threshold: 2, Total: 5, Index: 5}}, api.CodeIntegrity, []string{"share-1", "odd", "different things"}},
	} {
		m, err := keyring.CombineShares(c.shares)
		if m != nil || fault.CodeOf(err) != c.code || fault.FieldOf(err) != keyring.FieldShare {
			t.Errorf("%s: %v", what, err)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q doesn't say %q", what, err, word)
			}
		}
		if strings.Contains(err.Error(), lastGroup(text)) {
			t.Errorf("%s: a share is quoted", what)
		}
	}
}

// relabel gives a share another number and makes its check sum anew, as a forger can.
func relabel(t *testing.T, s keyring.EscrowShare, index int) keyring.EscrowShare {
	t.Helper()
	s.Index = index
	forged := parse(t, "forged", string(s.AppendText(nil)))
	return forged
}

func lastGroup(text string) string { return text[len(text)-5 : len(text)-1] }

// People type it in small letters, in one line, with blanks for dashes, I and L for 1, O for 0, notes between the lines.
func TestShareIsReadAsPeopleTypeIt(t *testing.T) {
	_, shares := split(t, 2, 3)
	text := string(shares[2].AppendText(nil))
	_, body, _ := strings.Cut(text, "kt-share1\n")
	for what, typed := range map[string]string{
		"as it is": text, "the code alone": "kt-share1\n" + body, "one line": "kt-share1." + strings.ReplaceAll(body, "\n", "-"), "small letters": strings.ToLower(text),
		"blanks": "kt-share1 " + strings.ReplaceAll(body, "-", " "), "nothing between": "KT-SHARE1 " + strings.Map(drop, body),
		"Windows": "\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"), "a note": strings.Replace(text, "\n"+body[:4], "\n# typed by Ann: 0OIL\n"+body[:4], 1),
		"I for 1, o for 0": strings.NewReplacer("1", "I", "0", "o").Replace(body), "no end of line": strings.TrimSpace(text), "empty lines": "\n\n" + strings.ReplaceAll(text, "\n", "\n\n"),
	} {
		if what == "I for 1, o for 0" {
			typed = "kt-share1\n" + typed
		}
		got := parse(t, what, typed)
		if string(got.AppendText(nil)) != text {
			t.Errorf("%s: read as another share", what)
		}
	}
}

func drop(r rune) rune {
	if r == '-' || unicode.IsSpace(r) {
		return -1
	}
	return r
}

// Every single wrong character, every swap of neighbours, every missing or additional one is found, and the share named.
func TestShareFindsTypingErrors(t *testing.T) {
	_, shares := split(t, 2, 3)
	text := shares[0].AppendText(nil)
	at := bytes.Index(text, []byte("kt-share1\n")) + len("kt-share1\n")
	fails := func(what string, typed []byte) {
		t.Helper()
		if _, err := keyring.ParseEscrowShare("box/share", bytes.Clone(typed)); fault.CodeOf(err) != api.CodeIntegrity || !strings.Contains(err.Error(), "box/share") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := at; i < len(text); i++ {
		if text[i] == '-' || text[i] == '\n' {
			continue
		}
		for _, c := range []byte("0123456789ABCDEFGHJKMNPQRSTVWXYZU*é") {
			if c != text[i] {
				wrong := bytes.Clone(text)
				wrong[i] = c
				fails(fmt.Sprintf("character %d is %q", i, c), wrong)
			}
		}
		fails("one missing", append(bytes.Clone(text[:i]), text[i+1:]...))
		fails("one more", append(append(bytes.Clone(text[:i]), '7'), text[i:]...))
		if text[i+1] != text[i] && text[i+1] != '-' && text[i+1] != '\n' {
			wrong := bytes.Clone(text)
			wrong[i], wrong[i+1] = wrong[i+1], wrong[i]
			fails("two swapped", wrong)
		}
	}
	fails("nothing but the mark", []byte("kt-share1"))
}

func TestShareRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"empty": "", "a key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "comments": "# kt-share1\n# x", "a later form": "kt-share2\nAAAA", "no end of the mark": "kt-share11AAAA", "binary": "\x00\xff",
		"something before": "x kt-share1\nAAAA", "large": "kt-share1\n" + strings.Repeat("A", keyring.MaxShareText),
	} {
		given := []byte(text)
		_, err := keyring.ParseEscrowShare("f", given)
		if fault.CodeOf(err) != api.CodeInvalid || !bytes.Equal(given, make([]byte, len(given))) {
			t.Errorf("%s: %v, wiped to %q", what, err, given)
		}
	}
}

// FuzzShare: no panic, nothing left of the text, and what is accepted prints as a share that reads as the same.
func FuzzShare(f *testing.F) {
	_, shares := split(f, 3, 5)
	f.Add(shares[0].AppendText(nil))
	f.Add([]byte(frozenShares[0]))
	f.Add([]byte("kt-share1\n0"))
	f.Add([]byte("# x\nKT-SHARE1." + strings.Repeat("0", 88)))
	f.Fuzz(func(t *testing.T, text []byte) {
		given := bytes.Clone(text)
		s, err := keyring.ParseEscrowShare("f", given)
		if !bytes.Equal(given, make([]byte, len(given))) {
			t.Fatal("the text wasn't wiped")
		}
		if err != nil {
			if code := fault.CodeOf(err); code != api.CodeInvalid && code != api.CodeIntegrity {
				t.Fatal(err)
			}
			return
		}
		printed := string(s.AppendText(nil))
		if again := parse(t, "f", printed); string(again.AppendText(nil)) != printed {
			t.Fatalf("%q", text)
		}
	})
}
