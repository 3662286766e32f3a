package reencrypt

import (
	"bytes"
	"context"

	"github.com/keyturn/keyturn/internal/envelope"
)

// Tally is a census of one column, counted by what its values say of themselves.
type Tally struct {
	Null      int64
	Plaintext int64
	Broken    int64 // begins like a ciphertext of ours, but the header isn't one
	Unknown   int64 // under a version that isn't Known
	Versions  map[VersionOf]int64
}

// VersionOf is a version of a key as a header names it.
type VersionOf struct {
	Key     envelope.KeyID
	Version uint32
}

// Known says which versions a census tells apart; all the others are one sum. Anybody who can write to the table can invent
// as many as it has rows, so what a census keeps must be bounded by something else than what it finds. It is asked after
// the census took its snapshot: a version that a value of it stands under was there before.
type Known func(ctx context.Context, v VersionOf) (bool, error)

// Rows is how many values there are, NULL included.
func (t *Tally) Rows() int64 {
	n := t.Null + t.Plaintext + t.Broken + t.Unknown
	for _, rows := range t.Versions {
		n += rows
	}
	return n
}

// Count takes a census of a target with so many columns.
func Count(ctx context.Context, target Target, columns int, known Known) ([]Tally, error) {
	out := make([]Tally, columns)
	for i := range out {
		out[i].Versions = map[VersionOf]int64{}
	}
	err := target.Census(ctx, func(g Group) error { return out[g.Column].add(ctx, g, known) })
	return out, err
}

func (t *Tally) add(ctx context.Context, g Group, known Known) error {
	s, v := g.stands()
	switch s {
	case isNull:
		t.Null += g.Rows
	case isPlaintext:
		t.Plaintext += g.Rows
	case isBroken:
		t.Broken += g.Rows
	default:
		ok, err := known(ctx, v)
		if err != nil {
			return err
		}
		if !ok {
			t.Unknown += g.Rows
			return nil
		}
		t.Versions[v] += g.Rows
	}
	return nil
}

// standing is what values are by how they begin.
type standing int

const (
	isNull standing = iota
	isPlaintext
	isBroken
	isOurs
)

// stands is how values of a group stand, and under what if they are ours.
func (g Group) stands() (standing, VersionOf) {
	switch {
	case g.Form == Null:
		return isNull, VersionOf{}
	case g.Form == Unsupported || !looksLikeOurs(g.Prefix):
		return isPlaintext, VersionOf{}
	}
	h, err := headerOf(g)
	if err != nil {
		return isBroken, VersionOf{}
	}
	return isOurs, VersionOf{h.KeyID, h.Version}
}

// envelopeMagic begins what the SDK's Envelope seals: "kte1.", then its data key as a ciphertext of the server without the
// "kt1.". So its first 37 characters say under which version it stands.
var envelopeMagic = []byte("kte1.")

func looksLikeOurs(v []byte) bool {
	return bytes.HasPrefix(v, envelopeMagic) || envelope.LooksLikeCiphertext(v)
}

// headerOf reads the header that values of a group begin with.
func headerOf(g Group) (envelope.Header, error) {
	if wrapped, ok := bytes.CutPrefix(g.Prefix, envelopeMagic); ok {
		return envelope.ParsePrefixText("kt1." + string(wrapped))
	}
	if g.Form == Text {
		return envelope.ParsePrefixText(string(g.Prefix))
	}
	return envelope.ParsePrefixText(string(envelope.AppendText(nil, g.Prefix)))
}

// remains reports whether a run of this kind has still to do values of a group.
func (k Kind) remains(g Group, keys Keys) bool {
	s, v := g.stands()
	switch k {
	case KindEncrypt:
		return s == isPlaintext
	case KindDecrypt:
		return s == isOurs && v.Key == keys.ID()
	case KindReencrypt:
		return s == isOurs && v.Key == keys.ID() && v.Version != keys.Current().Header().Version
	}
	return false
}
