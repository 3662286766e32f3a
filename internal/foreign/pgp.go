package foreign

import (
	"bytes"
	"crypto/fips140"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/keyturn/keyturn/internal/material"
)

// A message of pgp_sym_encrypt is two OpenPGP packets (RFC 4880): a symmetric-key encrypted session key (tag 3), which says
// how the password becomes a key, and encrypted data, with a modification detection code (tag 18) or without (tag 9).
const (
	tagSessionKey = 3
	tagPlainData  = 9
	tagMDCData    = 18
	// maxStretch is the most bytes that one password is hashed over for one value. pgcrypto itself asks for 65536 to
	// 253952; a value that asks for 64 MB would hold the work up.
	maxStretch = 8 << 20
)

var pgpArmor = []byte("-----BEGIN PGP")

func parsePGP(o *Opener, value []byte, text bool) (message, Verdict) {
	trimmed := bytes.TrimSpace(value)
	if bytes.HasPrefix(trimmed, pgpArmor) {
		raw, ok := unarmor(trimmed)
		if !ok {
			return missed(true)
		}
		return readPGP(raw)
	}
	raw, ok := o.unpack(value, text, beginsAsPGP)
	if !ok {
		return missed(looksLikePGP(bytes.TrimPrefix(trimmed, []byte(`\x`))))
	}
	return readPGP(raw)
}

func unarmor(text []byte) ([]byte, bool) {
	block, err := armor.Decode(bytes.NewReader(text))
	if err != nil || block.Type != "PGP MESSAGE" {
		return nil, false
	}
	raw, err := io.ReadAll(block.Body)
	return raw, err == nil
}

// beginsAsPGP: a session-key packet of version 4 with a length of one byte, in the new form or the old.
func beginsAsPGP(b []byte) bool {
	return len(b) > 4 && (b[0] == 0xc0|tagSessionKey || b[0] == 0x80|tagSessionKey<<2) && b[1] < 192 && b[2] == 4
}

// looksLikePGP is beginsAsPGP for a text that doesn't decode: "c30d04…" and "ww0E…".
func looksLikePGP(text []byte) bool {
	if len(text) < 6 {
		return false
	}
	inHex := bytes.EqualFold(text[:2], []byte("c3")) || bytes.EqualFold(text[:2], []byte("8c"))
	return inHex && string(text[4:6]) == "04" || (text[0] == 'w' || text[0] == 'j') && text[3] == 'E'
}

// readPGP looks at the two packets' heads: whether the message can be verified, and whether it asks for more than it should.
func readPGP(raw []byte) (message, Verdict) {
	if !beginsAsPGP(raw) || len(raw) < 2+int(raw[1])+2 {
		return missed(true)
	}
	head, data := raw[2:2+int(raw[1])], raw[2+int(raw[1]):]
	if len(head) < 4 {
		return missed(true)
	}
	switch mode := head[2]; {
	case mode == 3 && len(head) < 13:
		return missed(true)
	case mode == 3 && stretch(head[12]) > maxStretch, mode != 0 && mode != 1 && mode != 3:
		return message{}, Unsupported
	}
	m := message{all: raw}
	switch tagOf(data[0]) {
	case tagMDCData:
		m.verified = true
	case tagPlainData:
	default:
		return missed(true)
	}
	if _, err := packet.Read(bytes.NewReader(raw)); err != nil {
		return message{}, Unsupported // a cipher or a hash of long ago
	}
	return m, Opened
}

// stretch is the count of RFC 4880 section 3.7.1.3.
func stretch(c byte) int { return (16 + int(c&15)) << (c>>4 + 6) }

// tagOf is the tag of a packet's first byte, in the new form or the old; 0 when it is none.
func tagOf(b byte) byte {
	switch {
	case b&0xc0 == 0xc0:
		return b & 0x3f
	case b&0x80 != 0:
		return b >> 2 & 0x0f
	}
	return 0
}

// pgpPassword is one candidate. It keeps the password, because every value has its own salt.
type pgpPassword struct{ password *material.Bytes }

func loadPGP(_ *Opener, m *material.Bytes) (candidate, error) { return &pgpPassword{m}, nil }

func (p *pgpPassword) destroy() { p.password.Destroy() }

func (p *pgpPassword) open(dst []byte, m *message, _ time.Time) (out []byte, v Verdict) {
	out, v = dst, NoKey
	// OpenPGP's own hash is SHA-1, for keys and for the MDC; it is read here, never written.
	fips140.WithoutEnforcement(func() {
		inner, ok := p.decrypt(m.all)
		defer clear(inner)
		if !ok {
			return
		}
		if literal, ok := literalOf(inner, true); ok {
			out, v = append(dst, literal...), Opened
			clear(literal)
		}
	})
	return out, v
}

// decrypt is all that the data packet holds, read to its end and verified, before anybody looks at it.
func (p *pgpPassword) decrypt(raw []byte) (inner []byte, ok bool) {
	r := bytes.NewReader(raw)
	first, err := packet.Read(r)
	if err != nil {
		return nil, false
	}
	session, ok := first.(*packet.SymmetricKeyEncrypted)
	if !ok {
		return nil, false
	}
	second, err := packet.Read(r)
	if err != nil {
		return nil, false
	}
	data, ok := second.(*packet.SymmetricallyEncrypted)
	if !ok || data.IntegrityProtected && data.Version != 1 {
		return nil, false
	}
	key, cipher, err := session.Decrypt(p.password.Expose())
	if err != nil {
		return nil, false
	}
	defer clear(key)
	body, err := data.Decrypt(cipher, key)
	if err != nil {
		return nil, false
	}
	buf := bytes.NewBuffer(make([]byte, 0, len(raw)+bytes.MinRead)) // at once: growing would leave copies behind
	_, err = buf.ReadFrom(body)
	inner = buf.Bytes()
	if closing := body.Close(); err != nil || closing != nil || r.Len() > 0 {
		return inner, false
	}
	return inner, true
}

// literalOf is the content of the one literal packet in b, perhaps inside one compressed packet. Nothing may follow it.
func literalOf(b []byte, mayCompress bool) ([]byte, bool) {
	r := bytes.NewReader(b)
	p, err := packet.Read(r)
	if err != nil {
		return nil, false
	}
	switch p := p.(type) {
	case *packet.LiteralData:
		return readAll(p.Body, r)
	case *packet.Compressed:
		if !mayCompress {
			return nil, false
		}
		inner, ok := readAll(p.Body, r)
		defer clear(inner)
		if !ok {
			return nil, false
		}
		return literalOf(inner, false)
	}
	return nil, false
}

// readAll reads a body of MaxValue bytes at most, after which nothing of r is left.
func readAll(body io.Reader, r *bytes.Reader) ([]byte, bool) {
	out, err := io.ReadAll(io.LimitReader(body, MaxValue+1))
	if err != nil || len(out) > MaxValue || r.Len() > 0 {
		clear(out)
		return nil, false
	}
	return out, true
}
