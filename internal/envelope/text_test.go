package envelope

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blob := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "blob")
		text := AppendText([]byte("before"), blob)
		if len(text) != len("before")+TextLen(len(blob)) {
			t.Fatalf("%d bytes became %d characters, TextLen says %d", len(blob), len(text)-6, TextLen(len(blob)))
		}
		back, err := AppendDecodedText([]byte("before"), text[6:])
		if err != nil || !bytes.Equal(back, append([]byte("before"), blob...)) {
			t.Fatalf("read back as %x, %v", back, err)
		}
	})
}

// CVE-2020-8929 (row 68): a ciphertext has exactly one spelling. Everything that is accepted encodes back to itself, and
// the usual ways to spell base64 otherwise are refused.
func TestAdvisory_CVE_2020_8929(t *testing.T) {
	k := testKey(t, SuiteStandard)
	for n := range 3 { // all three lengths of the last group
		text := string(AppendText(nil, mustSeal(t, k, make([]byte, n), nil)))
		body := strings.TrimPrefix(text, "kt1.")
		raw, _ := base64.RawURLEncoding.DecodeString(body)
		variants := map[string]string{
			"padding": text + "=", "two paddings": text + "==", "space after": text + " ", "space before": " " + text, "newline after": text + "\n",
			"newline inside": text[:50] + "\n" + text[50:], "CRLF inside": text[:50] + "\r\n" + text[50:], "CR": text[:50] + "\r" + text[50:],
			"tab": text[:50] + "\t" + text[50:], "zero byte": text + "\x00", "byte order mark": "\ufeff" + text,
			"upper-case magic": "KT1." + body, "no magic": body, "another magic": "kt2." + body, "magic twice": "kt1." + text, "a colon": "kt1:" + body,
			"the standard alphabet": "kt1." + base64.RawStdEncoding.EncodeToString(append(raw, 0xff, 0xff, 0xff)),
			"a wide letter":         text[:50] + "Ａ" + text[53:], "a combining mark": text + "\u0301", "no-break space": text + "\u00a0",
			"one character less": text[:len(text)-1], "empty": "", "magic cut": "kt1", "percent": text[:50] + "%41" + text[51:],
		}
		alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		for _, c := range alphabet { // stray bits in the last character
			if last := text[:len(text)-1] + string(c); last != text {
				variants["last character "+string(c)] = last
			}
		}
		for name, v := range variants {
			blob, err := AppendDecodedText(nil, []byte(v))
			if err == nil {
				if got := string(AppendText(nil, blob)); got != v {
					t.Errorf("%d bytes, %s: accepted, but encodes to another text", n, name)
				}
				refuses(t, fmt.Sprintf("%d bytes, %s", n, name), k, blob, nil)
			} else if fault.CodeOf(err) != api.CodeIntegrity || err.Error() != errMalformed.Error() || blob != nil {
				t.Errorf("%d bytes, %s: %v", n, name, err)
			}
		}
	}
	for _, id := range []string{"", "11", strings.Repeat("0", 32), strings.ToUpper(testID.String()), testID.String() + " ", "0x" + testID.String()[2:], testID.String()[:31] + "g"} {
		if _, err := ParseKeyID(id); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("key id %q: %v", id, err)
		}
	}
	if id, err := ParseKeyID(testID.String()); err != nil || id != testID {
		t.Errorf("key id %v read back as %v, %v", testID, id, err)
	}
}

func TestPrefixText(t *testing.T) {
	for _, s := range sealing {
		k := testKey(t, s)
		prefix := k.Header().PrefixText()
		text := AppendText(nil, mustSeal(t, k, []byte("x"), nil))
		if len(prefix) != PrefixLen || string(text[:PrefixLen]) != prefix {
			t.Errorf("%v: the prefix is %q, a ciphertext begins %q", s, prefix, text[:PrefixLen])
		}
		h, err := ParsePrefixText(prefix)
		if err != nil || h != k.Header() {
			t.Errorf("%v: read back as %+v, %v", s, h, err)
		}
		for _, bad := range []string{"", prefix[:35], prefix + "A", "KT1." + prefix[4:], "kt1." + strings.Repeat("A", 32), prefix[:35] + "=", prefix[:35] + "\n", string(text)} {
			if _, err := ParsePrefixText(bad); fault.CodeOf(err) != api.CodeIntegrity {
				t.Errorf("prefix %q: %v", bad, err)
			}
		}
	}
}

func TestHeaderAppendBinary(t *testing.T) {
	h := Header{Format, SuiteCompact, testID, 0x01020304}
	b, err := h.AppendBinary([]byte("x"))
	if want := append([]byte("xKT\x01\x02"), append(testID[:], 1, 2, 3, 4)...); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, want %x", b, want)
	}
}

func TestInspect(t *testing.T) {
	for _, s := range sealing {
		for n := range 40 {
			blob := mustSeal(t, testKey(t, s), make([]byte, n), nil)
			info, err := Inspect(blob)
			most := n
			if s == SuiteCBC {
				most = n - n%16 + 15
			}
			if err != nil || info != (Info{testKey(t, s).Header(), most, s != SuiteCBC}) {
				t.Errorf("%v, %d bytes: %+v, %v", s, n, info, err)
			}
			if s == SuiteCBC && n == 0 {
				if _, err := Inspect(blob[:len(blob)-16]); err == nil {
					t.Error("CBC without a block is inspected")
				}
				if _, err := Inspect(blob[:len(blob)-1]); err == nil {
					t.Error("CBC with a part of a block is inspected")
				}
			}
			for _, bad := range [][]byte{nil, blob[:23], blob[:s.SealedLen(0)-17], append([]byte{'k'}, blob[1:]...), append([]byte("KT\x02"), blob[3:]...),
				append([]byte("KT\x01\x03"), blob[4:]...), append([]byte("KT\x01\x00"), blob[4:]...), append(append([]byte("KT\x01\x01"), make([]byte, 16)...), blob[20:]...),
				append(append(bytes.Clone(blob[:20]), 0, 0, 0, 0), blob[24:]...)} {
				if _, err := Inspect(bad); fault.CodeOf(err) != api.CodeIntegrity {
					t.Errorf("%v: %x: %v", s, bad, err)
				}
			}
		}
	}
}

func TestLooksLikeCiphertext(t *testing.T) {
	blob := mustSeal(t, testKey(t, SuiteStandard), []byte("x"), nil)
	text := string(AppendText(nil, blob))
	for value, want := range map[string]bool{
		text: true, string(blob): true, text[:40]: true, text[:20]: true, text + "tail": true, string(blob[:5]): true,
		text[:60] + "!" + text[61:]: true, "kt1.": true, text[:60] + "!": true,
		"": false, "kt1": false, "KT": false, "KT 17": false, "KTM": false, "kt1. see the manual": false, "kt1.2 (engine)": false, "kt1.ü": false, "x" + text: false,
		"078-05-1120": false, "gAAAAABf": false, "vault:v1:abc": false,
	} {
		if LooksLikeCiphertext([]byte(value)) != want {
			t.Errorf("%.50q: not %v", value, want)
		}
	}
}

func TestSuites(t *testing.T) {
	for s, c := range map[Suite]struct {
		name               string
		overhead, of0, of1 int
	}{
		SuiteStandard: {"standard", 116, 116, 117}, SuiteCompact: {"compact", 84, 84, 85}, SuiteCBC: {"cbc", 120, 120, 120},
		SuiteStream: {"stream", 0, 0, 0}, 0: {"invalid", 0, 0, 0}, 5: {"invalid", 0, 0, 0}, 255: {"invalid", 0, 0, 0},
	} {
		if s.String() != c.name || s.Overhead() != c.overhead || s.SealedLen(0) != c.of0 || s.SealedLen(1) != c.of1 {
			t.Errorf("%d: %v, overhead %d, 0 bytes become %d, 1 becomes %d", s, s, s.Overhead(), s.SealedLen(0), s.SealedLen(1))
		}
		got, err := ParseSuite(c.name)
		if usable := c.overhead > 0; usable != (err == nil) || usable && got != s || !usable && fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%q is read as %d, %v", c.name, got, err)
		}
	}
}
