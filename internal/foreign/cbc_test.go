package foreign_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/foreign"
)

const (
	key32   = "0123456789abcdef0123456789ABCDEF"
	other32 = "another key of thirty-two bytes!"
	mac32   = "and one more of them for the MAC"
)

// encrypted is IV | AES-CBC, by the standard library alone.
func encrypted(t testing.TB, key, iv, plain string) string {
	t.Helper()
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pad := 16 - len(plain)%16
	out := []byte(plain + strings.Repeat(string(rune(pad)), pad))
	cipher.NewCBCEncrypter(block, []byte(iv)).CryptBlocks(out, out)
	return iv + string(out)
}

func signed(key, value string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(value))
	return value + string(mac.Sum(nil))
}

func TestCBC(t *testing.T) {
	src := unverified(foreign.Source{Format: "aes-256-cbc"})
	o := opener(t, src, other32, key32)
	for _, plain := range []string{"", "x", "078-05-1120", strings.Repeat("block of sixteen", 3), "fünf\nZeilen\t"} {
		raw := encrypted(t, key32, "an IV of sixteen", plain)
		opens(t, o, raw, false, plain, 1)
		for _, text := range []string{
			base64.StdEncoding.EncodeToString([]byte(raw)), base64.URLEncoding.EncodeToString([]byte(raw)), base64.RawURLEncoding.EncodeToString([]byte(raw)),
			hex.EncodeToString([]byte(raw)), `\x` + hex.EncodeToString([]byte(raw)), strings.ToUpper(hex.EncodeToString([]byte(raw))),
			lines(base64.StdEncoding.EncodeToString([]byte(raw)), 20, "\n"), lines(base64.StdEncoding.EncodeToString([]byte(raw)), 16, "\r\n") + "\r\n",
		} {
			opens(t, o, text, true, plain, 1)
			refuses(t, o, text[:len(text)-7], true, foreign.NotForeign)
		}
	}
	refuses(t, opener(t, src, other32), encrypted(t, key32, "an IV of sixteen", "x"), false, foreign.NoKey)
	for _, plain := range []string{"", "hello", "078-05-1120", strings.Repeat("a", 64), "an IV of sixteen"} {
		refuses(t, o, plain, true, map[bool]foreign.Verdict{true: foreign.NoKey, false: foreign.NotForeign}[len(plain) == 64])
	}
}

// lines breaks a text as openssl and PostgreSQL do.
func lines(s string, n int, end string) string {
	var b strings.Builder
	for len(s) > n {
		b.WriteString(s[:n] + end)
		s = s[n:]
	}
	return b.String() + s
}

// What the column holds can be said, where bytes alone don't tell.
func TestEncodings(t *testing.T) {
	raw := encrypted(t, key32, "an IV of sixteen", "plain")
	text := base64.StdEncoding.EncodeToString([]byte(raw))
	src := unverified(foreign.Source{Format: "aes-256-cbc", Encoding: "base64"})
	opens(t, opener(t, src, key32), text, false, "plain", 0)
	opens(t, opener(t, src, key32), text, true, "plain", 0)
	src.Encoding = "hex"
	refuses(t, opener(t, src, key32), text, true, foreign.NotForeign)
	opens(t, opener(t, src, key32), hex.EncodeToString([]byte(raw)), false, "plain", 0)
	src.Encoding = "raw"
	refuses(t, opener(t, src, key32), text, true, foreign.NotForeign)
	opens(t, opener(t, src, key32), raw, true, "plain", 0)
}

func TestCBCWithMAC(t *testing.T) {
	src := foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}
	value := signed(mac32, encrypted(t, key32, "an IV of sixteen", "078-05-1120"))
	o := opener(t, src, other32+mac32, key32+other32, key32+mac32)
	opens(t, opener(t, src, key32+other32, key32+mac32), value, false, "078-05-1120", 1)
	opens(t, opener(t, src, key32), signed(key32, encrypted(t, key32, "an IV of sixteen", "one key for both")), false, "one key for both", 0)
	opens(t, opener(t, src, key32+mac32), base64.StdEncoding.EncodeToString([]byte(value)), true, "078-05-1120", 0)
	raw := []byte(value)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			refuses(t, o, string(raw), false, foreign.NoKey)
			raw[i] ^= 1 << bit
		}
	}
	refuses(t, o, signed(mac32, encrypted(t, key32, "an IV of sixteen", strings.Repeat("long", 9)))[:80], false, foreign.NoKey)
	refuses(t, o, value[:len(value)-1], false, foreign.NotForeign)
	refuses(t, o, value[:48], false, foreign.NotForeign)
	src.Expect = `\d{3}-\d{2}-\d{4}`
	opens(t, opener(t, src, key32+mac32), value, false, "078-05-1120", 0)
	src.Expect = `\d{3}`
	refuses(t, opener(t, src, key32+mac32), value, false, foreign.Unexpected)
}

// The tool that people used is the oracle: openssl enc with a key and an IV, and with a password.
func TestOpenSSLOracle(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("the command openssl is missing: scripts/test-deps.sh installs it")
	}
	run := func(stdin string, args ...string) string {
		cmd := exec.Command("openssl", append([]string{"enc"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		return string(out)
	}
	long := strings.Repeat("a line of text\n", 100)
	for _, plain := range []string{"", "078-05-1120", long} {
		iv := "an IV of sixteen"
		body := run(plain, "-aes-256-cbc", "-K", hex.EncodeToString([]byte(key32)), "-iv", hex.EncodeToString([]byte(iv)))
		opens(t, opener(t, unverified(foreign.Source{Format: "aes-256-cbc"}), key32), iv+body, false, plain, 0)

		salted := unverified(foreign.Source{Format: "aes-256-cbc", Layout: "openssl"})
		o := opener(t, salted, "wrong", "correct horse")
		value := run(plain, "-aes-256-cbc", "-pbkdf2", "-salt", "-pass", "pass:correct horse")
		opens(t, o, value, false, plain, 1)
		opens(t, o, run(plain, "-aes-256-cbc", "-pbkdf2", "-salt", "-a", "-pass", "pass:correct horse"), true, plain, 1)
		opens(t, o, hex.EncodeToString([]byte(value)), true, plain, 1)
		refuses(t, opener(t, salted, "wrong"), value, false, foreign.NoKey)
		refuses(t, o, value[:len(value)-1], false, foreign.Malformed)
		refuses(t, o, value[:16], false, foreign.Malformed)
		refuses(t, o, base64.StdEncoding.EncodeToString([]byte(value))[:30]+"!", true, foreign.Malformed)
		refuses(t, o, plain, true, foreign.NotForeign)

		salted.Iterations = 1000
		opens(t, opener(t, salted, "correct horse"), run(plain, "-aes-256-cbc", "-pbkdf2", "-iter", "1000", "-pass", "pass:correct horse"), false, plain, 0)
	}
}

// CVE-2023-2197 (row 21): a padding oracle. Whatever is changed in a value that nothing verifies, it opens to something
// that looks as it should, or the answer is one and the same.
func TestAdvisory_CVE_2023_2197(t *testing.T) {
	src := unverified(foreign.Source{Format: "aes-256-cbc", Expect: `\d{3}-\d{2}-\d{4}`})
	value := encrypted(t, key32, "an IV of sixteen", "078-05-1120")
	mac := signed(mac32, value)
	cases := map[string]*foreign.Opener{
		value: opener(t, src, key32, other32),
		mac:   opener(t, foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}, key32+mac32, other32+mac32),
	}
	const seed, each = 20260115, 50_000
	random := rand.New(rand.NewPCG(seed, 0))
	tried, opened := 0, 0
	answers := map[string]bool{}
	for value, o := range cases {
		for range each {
			raw := []byte(value)
			for range 1 + random.IntN(3) {
				raw[random.IntN(len(raw))] ^= byte(1 + random.IntN(255))
			}
			if string(raw) == value {
				continue
			}
			plain, _, v := o.Open(nil, raw, false, now)
			tried++
			if v == foreign.Opened { // of what nothing verifies, a digit may be turned into another one
				if o == cases[mac] || len(plain) != len("078-05-1120") {
					t.Fatalf("opened to %d bytes", len(plain))
				}
				opened++
				continue
			}
			answers[fmt.Sprint(v, v.Reason())] = true
		}
	}
	if len(answers) != 1 || tried < 99_000 {
		t.Errorf("%d different answers of %d", len(answers), tried)
	}
	t.Logf("row 21, seed %d: tried %d changed values, %d answers, %d opened to another value of the same form", seed, tried, len(answers), opened)
}
