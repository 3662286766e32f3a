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
	Versions  map[VersionOf]int64
}

// VersionOf is a version of a key as a header names it.
type VersionOf struct {
	Key     envelope.KeyID
	Version uint32
}

// Rows is how many values there are, NULL included.
func (t *Tally) Rows() int64 {
	n := t.Null + t.Plaintext + t.Broken
	for _, rows := range t.Versions {
		n += rows
	}
	return n
}

// Count takes a census of a target with so many columns.
func Count(ctx context.Context, target Target, columns int) ([]Tally, error) {
	out := make([]Tally, columns)
	for i := range out {
		out[i].Versions = map[VersionOf]int64{}
	}
	err := target.Census(ctx, func(g Group) error {
		out[g.Column].add(g)
		return nil
	})
	return out, err
}

func (t *Tally) add(g Group) {
	switch {
	case g.Form == Null:
		t.Null += g.Rows
	case g.Form == Unsupported || !looksLikeOurs(g.Prefix):
		t.Plaintext += g.Rows
	default:
		h, err := headerOf(g)
		if err != nil {
			t.Broken += g.Rows
			return
		}
		t.Versions[VersionOf{h.KeyID, h.Version}] += g.Rows
	}
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

// remaining is how many values a run of this kind has still to do.
func (k Kind) remaining(t *Tally, keys Keys) (n int64) {
	if k == KindEncrypt {
		return t.Plaintext
	}
	for v, rows := range t.Versions {
		old := k == KindDecrypt || k == KindReencrypt && v.Version != keys.Current().Header().Version
		if v.Key == keys.ID() && old {
			n += rows
		}
	}
	return n
}
