package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// testEveryOperationFails runs a small life of a key under Sweep. After each step the sound store must show all of it or
// nothing, and what it shows must agree with what the step answered: nil is all, an error is nothing, and only
// ErrCommitUnknown may be either.
func testEveryOperationFails(t *testing.T, o Opener) {
	st := open(t, o)
	h := acquire(t, st, "n", at(0), time.Hour)
	Sweep(t, func(t *testing.T, p *Plan) {
		l := &life{t: t, st: st, faulty: Faulty(st, p), key: newKey(t, fmt.Sprintf("k-%d-%d", p.Kind, p.N), 1), epoch: h.Epoch, number: int(p.Kind)*1000 + int(p.N)}
		l.step("create", l.create, l.created)
		l.step("append", l.append, l.appended)
		l.step("rotate", l.rotate, l.rotated)
	})
}

type life struct {
	t          *testing.T
	st, faulty store.Store
	key        keys.Key
	epoch      int64
	next       *audit.Segment
	number     int // of this run among all
}

// step runs do on the faulty store. When the step didn't happen it is done again on the sound one, so that the next step
// finds what it expects: what a failure leaves behind hinders nobody.
func (l *life) step(name string, do func(context.Context, store.Store) error, done func() bool) {
	l.t.Helper()
	ctx := l.t.Context()
	l.prepare()
	err := do(ctx, l.faulty)
	happened := done()
	switch {
	case errors.Is(err, store.ErrCommitUnknown):
		if fault.CodeOf(err) != api.CodeUnavailable {
			l.t.Errorf("%s: an unknown commit has the code %s", name, fault.CodeOf(err))
		}
	case (err == nil) != happened:
		l.t.Errorf("%s: answered %v, and happened is %v", name, describe(err), happened)
	}
	if happened {
		return
	}
	l.prepare()
	if err := do(ctx, l.st); err != nil || !done() {
		l.t.Errorf("%s again: %v", name, describe(err))
	}
}

// prepare makes the segment that comes next in the log.
func (l *life) prepare() {
	view(l.t, l.st, func(tx store.Tx) error {
		heads, err := tx.Heads(l.t.Context())
		if err == nil {
			l.next = segment(heads[0].Shard, heads[0].Seq+1, l.epoch, heads[0].Size, 2)
		}
		return err
	})
}

// logged says whether the prepared segment is at the head, by its nonce: what the gate does after an unknown commit.
func (l *life) logged() (yes bool) {
	view(l.t, l.st, func(tx store.Tx) error {
		heads, err := tx.Heads(l.t.Context())
		yes = err == nil && heads[0].Nonce == l.next.Nonce
		return err
	})
	return yes
}

// versions is the number of versions of the stored key, 0 without a key.
func (l *life) versions() int {
	var k keys.Key
	err := l.st.View(l.t.Context(), func(tx store.Tx) (err error) { k, err = tx.KeyByName(l.t.Context(), l.key.Name); return err })
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		l.t.Error(describe(err))
	}
	return len(k.Versions)
}

func (l *life) create(ctx context.Context, st store.Store) error {
	return st.Change(ctx, func(tx store.Tx) error {
		if err := tx.CreateKey(ctx, l.key); err != nil {
			return err
		}
		if err := tx.AddTransitions(ctx, l.key.ID, []keys.Transition{{Version: 1, To: keys.Active, At: epoch}}); err != nil {
			return err
		}
		return tx.AppendSegment(ctx, l.next)
	})
}

func (l *life) created() bool {
	if l.logged() != (l.versions() == 1) {
		l.t.Error("the key and its event don't go together")
	}
	return l.versions() == 1
}

func (l *life) append(ctx context.Context, st store.Store) error { return st.Append(ctx, l.next) }

func (l *life) appended() bool { return l.logged() }

func (l *life) rotate(ctx context.Context, st store.Store) error {
	return st.Change(ctx, func(tx store.Tx) error {
		k, err := tx.KeyByName(ctx, l.key.Name)
		if err != nil {
			return err
		}
		moves := rotate(l.t, &k, 1)
		if err := tx.UpdateKey(ctx, k); err != nil {
			return err
		}
		if err := tx.AddTransitions(ctx, k.ID, moves); err != nil {
			return err
		}
		if _, _, err := tx.InsertJob(ctx, newJob(l.number, "")); err != nil {
			return err
		}
		if err := tx.SetMeta(ctx, "last rotated", k.Name); err != nil {
			return err
		}
		return tx.AppendSegment(ctx, l.next)
	})
}

func (l *life) rotated() bool {
	if l.logged() != (l.versions() == 2) {
		l.t.Error("the rotation and its event don't go together")
	}
	return l.versions() == 2
}
