package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// meta reads a setting outside of any other transaction; absent is "".
func meta(t *testing.T, st store.Store, key string) (value string) {
	t.Helper()
	err := st.View(context.WithoutCancel(t.Context()), func(tx store.Tx) (err error) {
		value, err = tx.Meta(t.Context(), key)
		return err
	})
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		t.Fatal(describe(err))
	}
	return value
}

func testTransactions(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	change(t, st, func(tx store.Tx) error { return tx.SetMeta(ctx, "kept", "1") })

	mine := errors.New("mine")
	err := st.Change(ctx, func(tx store.Tx) error {
		return errors.Join(tx.SetMeta(ctx, "kept", "2"), tx.SetMeta(ctx, "new", "2"), mine)
	})
	if !errors.Is(err, mine) {
		t.Errorf("the function's error came back as %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = st.Change(ctx, func(tx store.Tx) error { _ = tx.SetMeta(ctx, "kept", "3"); panic("mine") })
	}()
	if got := meta(t, st, "kept") + meta(t, st, "new"); got != "1" {
		t.Errorf("after an error and a panic the settings read %q, want what was there before", got)
	}
	overlooked(t, st)

	var kept store.Tx
	change(t, st, func(tx store.Tx) error { kept = tx; return nil })
	if err := kept.SetMeta(ctx, "kept", "5"); err == nil {
		t.Error("a transaction could be used after its end")
	}
}

// overlooked: a function that goes on after a failed statement can't commit what it did before and after.
func overlooked(t *testing.T, st store.Store) {
	ctx := t.Context()
	kek := func(id keys.KEKID, version uint32) keys.KEK {
		return keys.KEK{ID: id, Purpose: keys.KEKData, Version: version, Active: true, Created: epoch}
	}
	var first, second error
	err := st.Change(ctx, func(tx store.Tx) error {
		if err := tx.SetMeta(ctx, "kept", "4"); err != nil {
			return err
		}
		if err := tx.PutKEKs(ctx, kek("a", 1)); err != nil {
			return err
		}
		first = tx.PutKEKs(ctx, kek("b", 2)) // a second active one
		second = tx.SetMeta(ctx, "kept", "4")
		return nil
	})
	wantCode(t, first, api.CodeConflict, "a second active KEK")
	wantCode(t, second, api.CodeConflict, "a statement after a failed one")
	wantCode(t, err, api.CodeConflict, "committing after a failed statement")
	if got := meta(t, st, "kept"); got != "1" {
		t.Errorf("a transaction with a failed statement wrote %q", got)
	}
}

func testViews(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	change(t, st, func(tx store.Tx) error { return tx.SetMeta(ctx, "n", "1") })
	for name, write := range map[string]func(tx store.Tx) error{
		"SetMeta":         func(tx store.Tx) error { return tx.SetMeta(ctx, "n", "2") },
		"CreateKey":       func(tx store.Tx) error { return tx.CreateKey(ctx, newKey(t, "k", 1)) },
		"PutCheckpoint":   func(tx store.Tx) error { return tx.PutCheckpoint(ctx, audit.StoredCheckpoint{Sequence: 1}) },
		"the transaction": func(tx store.Tx) error { _, err := tx.SQL().ExecContext(ctx, `DELETE FROM meta`); return err },
	} {
		if err := st.View(ctx, write); err == nil {
			t.Errorf("%s wrote in a View", name)
		}
	}
	if got := meta(t, st, "n"); got != "1" {
		t.Errorf("a View wrote %q", got)
	}

	var before, after string
	view(t, st, func(tx store.Tx) (err error) {
		if before, err = tx.Meta(ctx, "n"); err != nil {
			return err
		}
		change(t, st, func(tx store.Tx) error { return tx.SetMeta(ctx, "n", "3") })
		after, err = tx.Meta(ctx, "n")
		return err
	})
	if before != "1" || after != "1" {
		t.Errorf("a View read %q, then %q: not one snapshot", before, after)
	}
	if got := meta(t, st, "n"); got != "3" {
		t.Errorf("a later View reads %q", got)
	}
}

func testCancelling(t *testing.T, o Opener) {
	st := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	err := st.Change(ctx, func(tx store.Tx) error {
		if err := tx.SetMeta(ctx, "n", "1"); err != nil {
			return err
		}
		cancel()
		return nil
	})
	wantCode(t, err, api.CodeCancelled, "cancelled before its commit")
	called := false
	wantCode(t, st.Change(ctx, func(store.Tx) error { called = true; return nil }), api.CodeCancelled, "changing under a dead context")
	wantCode(t, st.View(ctx, func(store.Tx) error { called = true; return nil }), api.CodeCancelled, "reading under a dead context")
	wantCode(t, st.Append(ctx, segment(0, 1, 1, 0, 1)), api.CodeCancelled, "appending under a dead context")
	if called {
		t.Error("a function ran under a dead context")
	}
	if got := meta(t, st, "n"); got != "" {
		t.Errorf("a cancelled transaction wrote %q", got)
	}
	change(t, st, func(tx store.Tx) error { return tx.SetMeta(t.Context(), "n", "2") })
}

func testReopening(t *testing.T, o Opener) {
	st := open(t, o)
	change(t, st, func(tx store.Tx) error { return tx.SetMeta(t.Context(), "n", "1") })
	if len(st.ID()) != 32 {
		t.Errorf("the store's id is %q", st.ID())
	}
	if err := st.Durable(t.Context()); err != nil {
		t.Errorf("a fresh store isn't durable: %v", err)
	}
	for range 2 {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(store.Tx) error { return nil }
	if st.Change(t.Context(), nothing) == nil || st.View(t.Context(), nothing) == nil || st.Append(t.Context(), segment(0, 1, 1, 0, 1)) == nil {
		t.Error("a closed store still works")
	}
	again := open(t, o)
	if again.ID() != st.ID() || meta(t, again, "n") != "1" {
		t.Errorf("after opening again: id %q (was %q), setting %q", again.ID(), st.ID(), meta(t, again, "n"))
	}
}
