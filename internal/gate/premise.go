package gate

import (
	"context"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Where several processes share a store, a node knows keys from its own cache, and another may change one at any moment.
// So an operation names what it rests on, its record is written only if that still stands at the moment of the commit, and
// an operation whose ground was taken away is done again (docs/decisions/0010). Where one process has the store for itself
// nothing of this happens: a change drops the cache before it is answered.

// underPremises is the key of a Use's record in the context of its function.
type underPremises struct{}

// RestsOn says, from inside a Use's function, that the operation rests on a key as it stood at a revision. If the key has
// been changed by the time at which the record is committed, nothing is recorded and the function runs again. Call it in
// the function's own goroutine for every key that was looked up, found fit or not.
func RestsOn(ctx context.Context, key envelope.KeyID, revision int64) {
	if r, ok := ctx.Value(underPremises{}).(*record); ok {
		r.premises = join(r.premises, audit.Premise{Key: key, Revision: revision})
	}
}

// join adds what isn't there yet. The lists are short: most operations of a segment rest on the same few keys.
func join(all []audit.Premise, more ...audit.Premise) []audit.Premise {
	for _, p := range more {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// maxRuns is how often an operation is done before it is refused because its key keeps changing.
const maxRuns = 32

var errKeepsChanging = fault.New(api.CodeBusy, "the key was changed again and again while it was used").WithNext("try again")

// errFallen says that the premises of some events of a segment don't hold: nothing was written. It never leaves the package.
type errFallen struct{ premises []audit.Premise }

func (errFallen) Error() string { return "the ground of an operation has changed" }

// errOutdated is how a record's owner hears that his operation must be done again. It never leaves the package.
var errOutdated = fault.New(api.CodeBusy, "the key was changed while it was used")

// fallen looks, after an append that wrote nothing though the shard is ours, whether premises are the reason.
func (g *Gate) fallen(premises []audit.Premise) error {
	if len(premises) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	fallen, err := g.readFallen(ctx, premises)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "recording an operation in the audit log: it is refused").
			WithNext("try again when the store answers")
	}
	if len(fallen) == 0 {
		return nil
	}
	for _, p := range fallen {
		g.cfg.Outdated(p.Key)
	}
	return errFallen{fallen}
}

func (g *Gate) readFallen(ctx context.Context, premises []audit.Premise) (fallen []audit.Premise, err error) {
	err = g.st.View(ctx, func(tx store.Tx) error {
		fallen, err = tx.Fallen(ctx, premises)
		return err
	})
	return fallen, err
}

// commit places the segment of a batch. Events whose premises have fallen are left out, their owners told by the record,
// and the others placed again: nobody has to do again what only a neighbour's key made void.
func (g *Gate) commit(b *batch) error {
	for {
		err := g.place(&b.contents, "")
		f, ok := err.(errFallen) //nolint:errorlint // never wrapped
		if !ok {
			return err
		}
		b.without(f.premises)
		if len(b.leaves) == 0 {
			return nil
		}
	}
}

// without takes out the events that rest on what has fallen; that is at least one. The contents are made anew, because the
// store may still hold the old buffer.
func (b *batch) without(fallen []audit.Premise) {
	var c contents
	stay := b.records[:0]
	for _, r := range b.records {
		r.outdated = slices.ContainsFunc(r.premises, func(p audit.Premise) bool { return slices.Contains(fallen, p) })
		if r.outdated {
			continue
		}
		stay = append(stay, r)
		c.add(r.line, r.leaf, audit.ResourceMask(r.ev.Resource), r.ev.Time)
		c.premises = join(c.premises, r.premises...)
	}
	b.records, b.contents = stay, c
}
