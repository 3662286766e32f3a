package gate

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// ChangeFunc is the work of a Change.
type ChangeFunc = func(ctx context.Context, tx store.Tx, ev *audit.Event) error

// Change decides, runs change in a transaction, and commits its effect and its event together or neither. change may run
// more than once (store.Store.Change says when) and gets a fresh event each time; it must be short, use tx only, and
// neither wait for a network nor call the gate: all recording of this node waits for it.
//
// An error of change is recorded as a failure, after the transaction was undone, and returned. Unavailable with
// store.ErrCommitUnknown in its chain means that nobody knows yet whether the change happened; after every other error
// it didn't.
func (g *Gate) Change(ctx context.Context, c *access.Caller, in Intent, change ChangeFunc) error {
	if err := g.enter(ctx, in); err != nil {
		return err
	}
	r := records.Get().(*record)
	defer r.release()
	g.describe(&r.ev, c, in)
	if denied := decide(&r.ev, c, in); denied != nil {
		return g.conclude(r, denied)
	}
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return g.conclude(r, fault.Wrap("", context.Cause(ctx), "waiting to change the store"))
	}
	defer func() { <-g.turn }()
	before := r.ev
	mine, err := g.transact(ctx, r, in.Verb, change)
	if err == nil {
		return nil
	}
	// The failure's event describes what was asked, not what a transaction that was undone had filled in.
	r.ev = before
	outcome(&r.ev, err)
	return g.changeFailed(r, mine, err)
}

// changeFailed records a failed change while the turn is still held. That also makes the answer to an ambiguous commit
// definite: once another segment stands where the transaction wanted to put its own (its nonce is mine, empty if it never
// got as far as that), it can't commit any more; and if it has, the failure is not recorded, for there is none.
func (g *Gate) changeFailed(r *record, mine string, err error) error {
	lost := r.encode()
	if lost == nil {
		lost = g.place(r.alone(), mine)
	}
	switch {
	case errors.Is(lost, errArrived):
		return nil
	case lost == nil && errors.Is(err, store.ErrCommitUnknown):
		return fault.New(api.CodeUnavailable, "the database failed while committing: the change did not happen").WithNext("try again")
	case lost == nil:
		return err
	case errors.Is(err, store.ErrCommitUnknown):
		return fault.Wrap(api.CodeUnavailable, errors.Join(store.ErrCommitUnknown, lost), "nobody knows yet whether the change happened").
			WithNext("look at the state before trying again")
	}
	return lost
}

// transact runs the transaction with the event in it, a second time if an earlier append of ours turns out to have
// arrived late. The nonce comes back when the transaction failed with its segment in it.
func (g *Gate) transact(ctx context.Context, r *record, verb string, change ChangeFunc) (ambiguous string, err error) {
	before, marked := r.ev, context.WithValue(ctx, insideChange{}, true)
	for range tries {
		if err := g.ready(); err != nil {
			return "", err
		}
		var a attempt
		err = g.st.Change(ctx, func(tx store.Tx) error {
			r.ev, a = before, attempt{}
			if err := g.guard(verb, func() error { return change(marked, tx, &r.ev) }); err != nil {
				return err
			}
			r.ev.Success = true
			if err := r.encode(); err != nil {
				return err
			}
			a = g.shard.build(r.alone())
			return tx.AppendSegment(ctx, &a.segment)
		})
		switch {
		case err == nil:
			g.advance(&a)
			return "", nil
		case a.segment.Nonce == "":
			return "", err // change's own
		case !errors.Is(err, audit.ErrFenced):
			if g.arrived(&a) {
				return "", nil
			}
			return a.segment.Nonce, err
		}
		if err := g.settle(); err != nil {
			return "", err
		}
	}
	return "", err
}
