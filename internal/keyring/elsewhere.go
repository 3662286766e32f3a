package keyring

import (
	"context"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// Several nodes share a store, and their lists of master keys needn't be the same: whoever adds one adds it on one node. So a
// node finds wrappings under master keys that it doesn't have. They are somebody's way in, and nothing that this node does
// in passing may take it away: they stay, blob for blob, until somebody says that they go.

// Elsewhere is a master key that key-encryption keys are wrapped under and that isn't among a node's own.
type Elsewhere struct {
	URL, ID string
	Name    string // what it is called in commands: the URL where that names no other, else the ID
	KEKs    int    // how many are wrapped under it
}

// Elsewhere lists the master keys that the store is wrapped under and that this ring doesn't have.
func (r *Ring) Elsewhere(ctx context.Context) ([]Elsewhere, error) {
	records, err := r.src.KEKs(ctx)
	if err != nil {
		return nil, fault.Wrap("", err, "reading the key-encryption keys")
	}
	return elsewhere(records, r.Masters()), nil
}

func elsewhere(records []keys.KEK, masters []MasterKey) (out []Elsewhere) {
	place := map[string]int{}
	for _, rec := range records {
		for _, w := range rec.Wrappings {
			if slices.ContainsFunc(masters, func(m MasterKey) bool { return isUnder(w, m) }) {
				continue
			}
			i, ok := place[w.MasterID]
			if !ok {
				i = len(out)
				place[w.MasterID] = i
				out = append(out, Elsewhere{URL: w.URL, ID: w.MasterID})
			}
			out[i].KEKs++
		}
	}
	for i := range out {
		e := &out[i]
		taken := slices.ContainsFunc(masters, func(m MasterKey) bool { return m.URL() == e.URL }) ||
			slices.ContainsFunc(out, func(other Elsewhere) bool { return other.ID != e.ID && other.URL == e.URL })
		if e.Name = e.URL; taken {
			e.Name = e.ID
		}
	}
	return out
}

// isUnder says whether a wrapping is one under a master key. A key that could not be opened has no fingerprint; its URL
// stands for it then.
func isUnder(w keys.Wrapping, m MasterKey) bool {
	if id := m.ID(); id != "" {
		return w.MasterID == id
	}
	return w.URL == m.URL()
}

// Without is the wrappings under those of before that aren't among after: what a change of the list gives up.
func Without(before, after []MasterKey) func(keys.Wrapping) bool {
	var gone []MasterKey
	for _, m := range before {
		if !slices.Contains(after, m) {
			gone = append(gone, m)
		}
	}
	return func(w keys.Wrapping) bool {
		return slices.ContainsFunc(gone, func(m MasterKey) bool { return isUnder(w, m) })
	}
}

// kept are the wrappings of before that stay beside the fresh ones: all under other master keys, but for those that are
// given up. One under an escrow key never stays as it is: a set of shares that was replaced must open nothing, and
// the key of the present one is always at hand to wrap anew.
func kept(fresh, before []keys.Wrapping, gone func(keys.Wrapping) bool) (out []keys.Wrapping) {
	for _, w := range before {
		again := slices.ContainsFunc(fresh, func(f keys.Wrapping) bool { return f.MasterID == w.MasterID })
		if !again && w.URL != EscrowURL && (gone == nil || !gone(w)) {
			out = append(out, w)
		}
	}
	return out
}

// wrappable refuses to make key-encryption keys that would not open under every master key that those before them open under.
func wrappable(records []keys.KEK, masters []MasterKey) error {
	lacking := elsewhere(records, masters)
	if len(lacking) == 0 {
		return nil
	}
	var shown, add, remove []string
	for _, e := range lacking {
		shown = append(shown, e.URL+" (fingerprint "+e.ID+")")
		add, remove = append(add, e.URL), append(remove, "keyturn master remove "+e.Name)
	}
	return fault.New(api.CodeConflict, "making new key-encryption keys: they would not open under "+strings.Join(shown, ", ")+
		", which the store is wrapped under and this node doesn't have").
		WithNext("add " + strings.Join(add, ", ") + " to masterKeys in the configuration of this node and start it again, or do it on a node that has all; or give up what nobody needs any more: " +
			strings.Join(remove, "; "))
}

// notWrapped is why a KEK doesn't open under a master key of the configuration that it has no wrapping for.
func (r *Ring) notWrapped(rec keys.KEK, master MasterKey) error {
	err := fault.New(api.CodeNotFound, "key-encryption key "+string(rec.ID)+" isn't wrapped under "+master.URL())
	opens := func(m MasterKey) bool { return Opens(m) && m.ID() != master.ID() && wrappingUnder(rec, m) != nil }
	if slices.ContainsFunc(r.Masters(), opens) {
		return err.WithNext("if it is to open the store, wrap it: keyturn master rotate; if another node removed it, take it out of masterKeys here, too")
	}
	return err.WithNext("it was removed on another node, or is another key than it was. Put into masterKeys of this node, and start it again: " + wrappedBy(rec))
}

// Away stands for a configured master key that could not be opened: it answers with why.
func Away(url string, why error) MasterKey {
	scheme, _, _ := strings.Cut(url, ":")
	return &unopened{url: url, provider: scheme, err: why}
}
