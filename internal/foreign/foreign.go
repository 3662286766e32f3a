// Package foreign opens what other systems encrypted, so that it can be sealed as keyturn's own: bytes in, plaintext out.
// It reads and never writes these formats, and knows no database and no clock (the time is an argument).
//
//	src := foreign.Source{Format: "fernet"}
//	o, err := foreign.New(src, []*material.Bytes{oldKey, olderKey}) // they are owned by o now
//	plain, which, verdict := o.Open(nil, value, true, now)
//	if verdict != foreign.Opened { reason := o.Reason(verdict) }
//
//	format       layout    a value is                                    candidates              verified by
//	fernet       token     80 | time | IV | AES-128-CBC | HMAC           32-byte keys            HMAC-SHA-256
//	aes-256-cbc  iv        IV | AES-256-CBC                              32-byte keys            nothing
//	aes-256-cbc  iv-hmac   IV | AES-256-CBC | HMAC(IV | ciphertext)      64 bytes: key, MAC key  HMAC-SHA-256
//	aes-256-cbc  openssl   "Salted__" | salt | AES-256-CBC               passwords               nothing
//	pgcrypto     pgp       OpenPGP message of pgp_sym_encrypt            passwords               MDC
//	pgcrypto     raw       AES-CBC of encrypt(), one IV for all          keys of 1 to 32 bytes   nothing
//	pgcrypto     raw-iv    IV | AES-CBC of encrypt_iv()                  keys of 1 to 32 bytes   nothing
//
// # What it promises
//
// A value is verified before it is decrypted, and nothing of it is handed out before all of it is verified. Where a layout
// has nothing to verify by, it is refused unless the caller says so ([Source.Unauthenticated]) and says what a plaintext
// looks like ([Source.Expect]); then every candidate is tried, and a value that opens under two of them to different
// plaintexts opens under none: it is never guessed. Whatever stopped a candidate (MAC, padding, expectation), the verdict
// is the same [NoKey]: there is no padding oracle. Padding is compared in constant time.
//
// What a value costs is bounded: its length by [MaxValue], also decompressed; the stretching of passwords by maxStretch.
//
// # Why it may read secret bytes
//
// Ciphers are keyed here as in package envelope, which can't take these formats in: every program with the SDK would link
// an OpenPGP library. docs/decisions says more.
package foreign

import (
	"cmp"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxValue is the most bytes of a value, and of its plaintext.
const MaxValue = 8 << 20

// Limits of a Source.
const (
	MaxCandidates     = 16
	MaxCandidate      = 4096 // bytes
	maxExpect         = 1000 // characters of an expression
	defaultIterations = 10000
	maxIterations     = 1_000_000
)

// Source says how values were encrypted. It holds no secret: it is kept with the job that reads them.
type Source struct {
	Format   string `json:"format"`             // one of Formats
	Layout   string `json:"layout,omitempty"`   // empty: the format's first
	Encoding string `json:"encoding,omitempty"` // auto (or empty), raw, base64 or hex
	// IV is the initialisation vector of pgcrypto raw in hex; empty means zeroes, as encrypt() has it.
	IV string `json:"iv,omitempty"`
	// Iterations is the number of rounds of PBKDF2 in openssl; 0 means 10000, as openssl enc has it.
	Iterations int `json:"iterations,omitempty"`
	// Unauthenticated says that values may be opened that nothing verifies. It takes an Expect.
	Unauthenticated bool `json:"unauthenticated,omitempty"`
	// Expect is what every plaintext must look like: utf8 (text without control characters), any, or a regular expression
	// (RE2) that fits all of it. Empty is no expectation.
	Expect string `json:"expect,omitempty"`
}

// The expectations that aren't regular expressions.
const (
	expectUTF8 = "utf8"
	expectAny  = "any"
)

// Formats lists the formats, each with its layouts, the default first.
func Formats() (out [][]string) {
	for _, f := range formats {
		if n := len(out); n > 0 && out[n-1][0] == f.name {
			out[n-1] = append(out[n-1], f.layout)
			continue
		}
		out = append(out, []string{f.name, f.layout})
	}
	return out
}

// TakesPasswords reports whether the candidates of s are passwords, and not keys.
func (s Source) TakesPasswords() bool {
	f, err := s.format()
	return err == nil && f.password
}

// What stretching a password costs on a slow machine: a round of PBKDF2 for key and IV, and a megabyte that OpenPGP hashes.
// Today's need less than half of it.
const (
	roundTime    = time.Microsecond
	megabyteTime = 10 * time.Millisecond
)

// Stretching is how long a single value may take under so many candidates where its password is stretched, cautiously
// estimated; 0 where candidates are keys. It says how many values make a unit of work.
func (s Source) Stretching(candidates int) time.Duration {
	switch f, err := s.format(); {
	case err != nil || !f.password:
		return 0
	case f.layout == layoutOpenSSL:
		return time.Duration(candidates) * time.Duration(cmp.Or(s.Iterations, defaultIterations)) * roundTime
	}
	return time.Duration(candidates) * (maxStretch >> 20) * megabyteTime
}

// Marked reports whether every value says by itself that it is of the format, so that plaintext between them can be told.
func (s Source) Marked() bool {
	f, err := s.format()
	return err == nil && f.marked
}

func (s Source) format() (*format, error) {
	var layouts []string
	for i := range formats {
		f := &formats[i]
		if f.name != s.Format {
			continue
		}
		if s.Layout == "" || s.Layout == f.layout {
			return f, nil
		}
		layouts = append(layouts, f.layout)
	}
	if layouts != nil {
		return nil, invalid("layout", "format "+s.Format+" has no such layout").WithNext("use one of " + strings.Join(layouts, ", "))
	}
	var names []string
	for _, f := range Formats() {
		names = append(names, f[0])
	}
	return nil, invalid("format", "there is no such format").WithNext("use one of " + strings.Join(names, ", "))
}

// Validate checks everything but the candidates. Errors are of code invalid and name a field below "from".
func (s Source) Validate() error {
	f, err := s.format()
	if err != nil {
		return err
	}
	switch {
	case !slices.Contains([]string{"", encodingAuto, encodingRaw, encodingBase64, encodingHex}, s.Encoding):
		return invalid("encoding", "there is no such encoding").WithNext("use auto, raw, base64 or hex")
	case s.IV != "" && f.layout != layoutRaw:
		return invalid("iv", "only pgcrypto raw takes an IV: in the other layouts it stands in the value")
	case s.Iterations != 0 && f.layout != layoutOpenSSL:
		return invalid("iterations", "only aes-256-cbc openssl takes a number of iterations")
	case s.Iterations < 0 || s.Iterations > maxIterations:
		return fault.Newf(api.CodeInvalid, "reading the source format: the iterations must be 1 to %d", maxIterations).WithField("from.iterations")
	case !f.verified && !s.Unauthenticated:
		return invalid("unauthenticated", "nothing in values of "+f.name+" "+f.layout+" verifies them: a wrong key or a changed value can look right").
			WithNext("say --unauthenticated to accept that, and with --expect what a plaintext looks like")
	case s.Unauthenticated && s.Expect == "":
		return invalid("expect", "values that nothing verifies are opened only when it is said what a plaintext looks like").
			WithNext("--expect utf8, --expect with a regular expression for the whole value, or --expect any to take whatever comes out")
	}
	if _, err := s.iv(); err != nil {
		return err
	}
	_, err = s.expectation()
	return err
}

func (s Source) iv() ([]byte, error) {
	if s.IV == "" {
		return make([]byte, blockSize), nil
	}
	iv, err := hex.DecodeString(s.IV)
	if err != nil || len(iv) != blockSize {
		return nil, invalid("iv", "the IV must be 32 hexadecimal digits")
	}
	return iv, nil
}

// expectation is Expect as a function; nil without one.
func (s Source) expectation() (func([]byte) bool, error) {
	switch s.Expect {
	case "", expectAny:
		return nil, nil
	case expectUTF8:
		return isText, nil
	}
	if len(s.Expect) > maxExpect {
		return nil, invalid("expect", "the expression is too long").WithNext(nextExpect)
	}
	// Compiled alone first: what closes a bracket of ours would be no expression of its own.
	if _, err := regexp.Compile(s.Expect); err != nil {
		return nil, invalid("expect", "it is neither utf8 nor any nor a regular expression").WithNext(nextExpect)
	}
	re, err := regexp.Compile(`\A(?:` + s.Expect + `)\z`)
	if err != nil {
		return nil, invalid("expect", "it is neither utf8 nor any nor a regular expression").WithNext(nextExpect)
	}
	return re.Match, nil
}

// nextExpect is how an expectation is written.
const nextExpect = "say utf8, any, or a regular expression of Go's (RE2) for the whole value, like [0-9]{3}-[0-9]{2}-[0-9]{4}"

// isText is valid UTF-8 without control characters but tab and line breaks. What a wrong key makes of a block of 16 random
// bytes passes, padding included, about once in a hundred million times.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	return !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f })
}

func invalid(field, why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading the source format: "+why).WithField("from." + field)
}
