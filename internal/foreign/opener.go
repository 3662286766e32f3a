package foreign

import (
	"crypto/hmac"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// Verdict is what became of a value. The zero Verdict is invalid.
type Verdict int

// The verdicts.
const (
	Opened      Verdict = iota + 1 // verified, as far as its format can be, and decrypted
	NotForeign                     // nothing in it says that it is of the format: plaintext, probably
	Malformed                      // it begins as the format does, and isn't of it
	NoKey                          // of the format, and no candidate opens it, for whatever reason
	Future                         // a Fernet token whose MAC is right and whose time has not come
	Ambiguous                      // nothing verifies it, and several candidates open it to different plaintexts
	Unverified                     // nothing verifies it, and that was not accepted
	Unsupported                    // it asks for what isn't done here: an old cipher, a stretching out of all proportion
	Unexpected                     // verified and decrypted, but not what was expected
)

// reasons say of a verdict what a dead-letter list shows: never a value, and never which check it was that failed.
var reasons = map[Verdict]string{
	NotForeign:  "it isn't in the format that was named",
	Malformed:   "it begins like a value of the format that was named, but isn't one: changed or cut short",
	NoKey:       "no candidate key opens it",
	Future:      "its time stamp lies in the future",
	Ambiguous:   "several candidate keys open it, and nothing in it says which is the right one",
	Unverified:  "nothing in it verifies it (no MDC), and opening such values was not asked for",
	Unsupported: "it needs a cipher, a hash or a number of iterations that keyturn doesn't read",
	Unexpected:  "it opens, but to something else than was expected",
}

// Reason says a verdict in words; empty for Opened.
func (v Verdict) Reason() string { return reasons[v] }

// format is a row of the table of formats.
type format struct {
	name, layout string
	verified     bool  // a value carries what verifies it
	marked       bool  // a value says by itself that it is of the format
	password     bool  // candidates are passwords
	sizes        []int // of a candidate; nil: any
	// parse finds the message in a value as it stands in its column. Its verdict is Opened when there is one.
	parse func(o *Opener, value []byte, text bool) (message, Verdict)
	// load makes a candidate. It reads m and leaves it to its caller, unless the candidate keeps it.
	load func(o *Opener, m *material.Bytes) (candidate, error)
}

// formats is the table of formats. The first layout of a format is its default.
var formats = []format{
	{name: "fernet", layout: "token", verified: true, marked: true, sizes: []int{32}, parse: parseFernet, load: loadFernet},
	{name: "aes-256-cbc", layout: "iv", sizes: []int{32}, parse: parseIV, load: loadCBC},
	{name: "aes-256-cbc", layout: "iv-hmac", verified: true, sizes: []int{64, 32}, parse: parseHMAC, load: loadHMAC},
	{name: "aes-256-cbc", layout: layoutOpenSSL, marked: true, password: true, parse: parseOpenSSL, load: loadOpenSSL},
	{name: "pgcrypto", layout: "pgp", verified: true, marked: true, password: true, parse: parsePGP, load: loadPGP},
	{name: "pgcrypto", layout: layoutRaw, parse: parseRaw, load: loadRaw},
	{name: "pgcrypto", layout: "raw-iv", parse: parseIV, load: loadRaw},
}

const (
	layoutOpenSSL = "openssl"
	layoutRaw     = "raw"
)

// message is a value taken apart as far as that is possible without a key.
type message struct {
	iv       []byte // or the salt
	body     []byte
	mac      []byte // over all in front of it
	all      []byte
	verified bool // it carries what verifies it
}

// candidate is one key or password, ready to try.
type candidate interface {
	// open appends the plaintext of m to dst. Its verdict is Opened, NoKey or Future; dst is as it was unless it is Opened.
	open(dst []byte, m *message, now time.Time) ([]byte, Verdict)
	destroy()
}

// Opener opens values of one Source under several candidates. It is safe for concurrent use, except Destroy.
type Opener struct {
	*format
	src        Source
	iv         []byte
	expect     func([]byte) bool // nil: anything
	candidates []candidate
}

// New takes ownership of the candidates and destroys them, after an error too. Errors are of code invalid; they name a
// candidate by its place and quote nothing.
func New(src Source, candidates []*material.Bytes) (o *Opener, err error) {
	o = &Opener{src: src}
	kept := map[*material.Bytes]bool{}
	defer func() {
		for _, m := range candidates {
			if err != nil || !kept[m] {
				m.Destroy()
			}
		}
	}()
	if err := src.Validate(); err != nil {
		return nil, err
	}
	o.format, _ = src.format()
	o.iv, _ = src.iv()
	o.expect, _ = src.expectation()
	if len(candidates) == 0 || len(candidates) > MaxCandidates {
		return nil, fault.Newf(api.CodeInvalid, "reading the candidate keys: there must be 1 to %d", MaxCandidates).WithField("from.keys").
			WithNext("name the files that hold them with --from-key-file")
	}
	for i, m := range candidates {
		if err := o.check(candidates[:i], m); err != nil {
			return nil, err
		}
		c, err := o.load(o, m)
		if err != nil {
			return nil, err
		}
		kept[m] = o.password
		o.candidates = append(o.candidates, c)
	}
	return o, nil
}

// check refuses a candidate of another length than the format's, and one that is there already: it would make every value
// ambiguous.
func (o *Opener) check(before []*material.Bytes, m *material.Bytes) error {
	n := len(before) + 1
	bad := func(why string) *fault.Error {
		return fault.Newf(api.CodeInvalid, "reading candidate key %d: %s", n, why).WithField("from.keys")
	}
	if m.Len() == 0 || m.Len() > MaxCandidate {
		return bad("it is empty or too long")
	}
	if o.sizes != nil && !slices.Contains(o.sizes, m.Len()) {
		return bad("it has the wrong length for " + o.name + " " + o.layout + "; see keyturn dataset encrypt --help")
	}
	for _, other := range before {
		if m.Equal(other) {
			return bad("it is the same as one before it").WithNext("name each candidate once")
		}
	}
	return nil
}

// Open appends the plaintext of a value to dst, and says which candidate opened it; dst is as it was unless the verdict is
// Opened. text says that the value stands in a column of characters, not of bytes. dst must not overlap value.
func (o *Opener) Open(dst, value []byte, text bool, now time.Time) (out []byte, which int, v Verdict) {
	if len(value) > MaxValue {
		return dst, 0, Malformed
	}
	m, v := o.parse(o, value, text)
	switch {
	case v != Opened:
		return dst, 0, v
	case !m.verified && !o.src.Unauthenticated:
		return dst, 0, Unverified
	case m.verified:
		return o.openVerified(dst, &m, now)
	}
	return o.openUnverified(dst, &m, now)
}

// openVerified stops at the first candidate that verifies: there is no other.
func (o *Opener) openVerified(dst []byte, m *message, now time.Time) ([]byte, int, Verdict) {
	for i, c := range o.candidates {
		out, v := c.open(dst, m, now)
		switch {
		case v == NoKey:
			continue
		case v != Opened:
			return dst, 0, v
		case o.expect != nil && !o.expect(out[len(dst):]):
			clear(out[len(dst):])
			return dst, 0, Unexpected
		}
		return out, i, Opened
	}
	return dst, 0, NoKey
}

// openUnverified tries every candidate, and wants exactly one plaintext of them all.
func (o *Opener) openUnverified(dst []byte, m *message, now time.Time) (found []byte, which int, v Verdict) {
	v = NoKey
	for i, c := range o.candidates {
		var room []byte // the first plaintext stands in dst while the others are looked at
		if v == NoKey {
			room = dst
		}
		out, opened := c.open(room, m, now)
		plain := out[len(room):]
		if opened != Opened || o.expect != nil && !o.expect(plain) {
			clear(plain)
			continue
		}
		if v == NoKey {
			found, which, v = out, i, Opened
			continue
		}
		same := hmac.Equal(plain, found[len(dst):])
		clear(plain)
		if !same {
			clear(found[len(dst):])
			return dst, 0, Ambiguous
		}
	}
	if v != Opened {
		return dst, 0, v
	}
	return found, which, Opened
}

// Candidates is how many there are.
func (o *Opener) Candidates() int { return len(o.candidates) }

// Destroy wipes what is held of the candidates. Nothing opens afterwards.
func (o *Opener) Destroy() {
	if o == nil {
		return
	}
	for _, c := range o.candidates {
		c.destroy()
	}
	o.candidates = nil
}
