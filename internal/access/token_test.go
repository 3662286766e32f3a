package access

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestTokenRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		text, tok, err := NewToken(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^kt_[0-9a-f]{16}_[A-Za-z0-9_-]{43}[0-9a-f]{8}$`).MatchString(text) {
			t.Fatal("the token has another form than documented")
		}
		id, hash, err := ParseToken(text)
		if err != nil || id != tok.ID || hash != tok.Hash {
			t.Fatalf("parsing a new token: %v", err)
		}
		if seen[text] || seen[tok.ID] {
			t.Fatal("a token came twice")
		}
		seen[text], seen[tok.ID] = true, true
		if s := fmt.Sprintf("%+v", tok); strings.Contains(s, text) || strings.Contains(s, text[20:63]) {
			t.Fatal("the stored token holds its text")
		}
	}
}

func TestNewTokenNeedsRandomness(t *testing.T) {
	for _, r := range []io.Reader{iotest.ErrReader(errors.New("broken")), bytes.NewReader(make([]byte, 39))} {
		if text, _, err := NewToken(r); err == nil || text != "" {
			t.Errorf("a token without randomness: %v", err)
		}
	}
}

// Every truncation, extension and change of a token is refused, with one error.
func TestAdvisory_CVE_2026_27840(t *testing.T) {
	text, _, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{"", " " + text, text + " ", text + "\n", text + "=", text + text, strings.ToUpper(text), "Bearer " + text, strings.Replace(text, "kt_", "KT_", 1)}
	for i := range len(text) {
		bad = append(bad, text[:i], text[i+1:], text[:i]+text[i+1:], text[:i]+"\n"+text[i:], text[:i]+"\n"+text[i+1:])
	}
	for i := range len(text) {
		for bit := range 8 {
			b := []byte(text)
			b[i] ^= 1 << bit
			bad = append(bad, string(b))
		}
	}
	for _, s := range bad {
		if s == text {
			continue
		}
		_, _, err := ParseToken(s)
		if !errors.Is(err, errToken) || err.Error() != errToken.Error() || fault.CodeOf(err) != api.CodeUnauthenticated {
			t.Fatalf("a token with %d characters instead of %d: %v", len(s), len(text), err)
		}
	}
}

// A secret has one spelling: the two bits that base64 leaves over must be zero, even with a right checksum.
func TestTokenHasOneSpelling(t *testing.T) {
	text, _, err := NewToken(bytes.NewReader(make([]byte, 40)))
	if err != nil {
		t.Fatal(err)
	}
	body := text[:len(text)-tokenSumLen]
	for _, last := range "BCD" {
		other := body[:len(body)-1] + string(last)
		if _, _, err := ParseToken(other + checksum(other)); err == nil {
			t.Errorf("a secret ending in %c was accepted", last)
		}
	}
}

// A token is dead at its expiry, and an expiry is never taken for "never".
func TestAdvisory_CVE_2021_32923(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		t    Token
		want bool
	}{
		"never expires":            {Token{}, true},
		"a nanosecond before":      {Token{Expires: now.Add(1)}, true},
		"at the expiry":            {Token{Expires: now}, false},
		"a nanosecond after":       {Token{Expires: now.Add(-1)}, false},
		"revoked":                  {Token{Revoked: now.Add(-time.Hour)}, false},
		"revoked in the future":    {Token{Revoked: now.Add(time.Hour)}, false},
		"revoked and not expired":  {Token{Revoked: now, Expires: now.Add(time.Hour)}, false},
		"expired before the epoch": {Token{Expires: time.Unix(-1, 0)}, false},
	} {
		if got := c.t.Usable(now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text, _, _ := NewToken(bytes.NewReader(make([]byte, 40)))
	f.Add(text)
	f.Add("kt_")
	f.Fuzz(func(t *testing.T, s string) {
		id, _, err := ParseToken(s)
		if err != nil {
			return
		}
		if len(s) != tokenLen || s[:3+16] != TokenPrefix+id || checksum(s[:tokenLen-tokenSumLen]) != s[tokenLen-tokenSumLen:] {
			t.Fatal("accepted what isn't a token")
		}
	})
}
