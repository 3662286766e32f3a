package storetest

import (
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

func testKeys(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	k := newKey(t, "phi", 2)
	k.Cryptoperiod = keys.Cryptoperiod{Period: 90 * 24 * time.Hour, Warn: time.Hour, MaxOperations: 1 << 62, MaxBytes: 7}
	k.SuspendedDecrypts, k.MAC = true, "mac of phi"
	change(t, st, func(tx store.Tx) error { return tx.CreateKey(ctx, k) })
	k.Revision = 1

	same := func(what string, got, want keys.Key) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
		}
	}
	view(t, st, func(tx store.Tx) error {
		byName, err := tx.KeyByName(ctx, "phi")
		if err != nil {
			return err
		}
		byID, err := tx.KeyByID(ctx, k.ID)
		same("by name", byName, k)
		same("by id", byID, k)
		return err
	})
	find := func(name string, id envelope.KeyID) {
		refused(t, st, api.CodeNotFound, "a key that isn't there", func(tx store.Tx) error { _, err := tx.KeyByName(ctx, name); return err })
		refused(t, st, api.CodeNotFound, "an id that isn't there", func(tx store.Tx) error { _, err := tx.KeyByID(ctx, id); return err })
	}
	find("PHI", envelope.NewKeyID())
	find("", envelope.KeyID{})

	sameID := newKey(t, "other", 1)
	sameID.ID = k.ID
	for what, double := range map[string]keys.Key{"the same name": newKey(t, "phi", 1), "the same id": sameID} {
		refused(t, st, api.CodeConflict, what, func(tx store.Tx) error { return tx.CreateKey(ctx, double) })
	}
	// A conflict is an answer, not a failure: the transaction goes on.
	change(t, st, func(tx store.Tx) error {
		wantCode(t, tx.CreateKey(ctx, newKey(t, "phi", 1)), api.CodeConflict, "the same name again")
		return tx.SetMeta(ctx, "after", "1")
	})
	revisions(t, st, k)
	pages(t, st)
}

// revisions: of two who read the same key one writes.
func revisions(t *testing.T, st store.Store, k keys.Key) {
	ctx := t.Context()
	first, second := k.Clone(), k.Clone()
	rotate(t, &first, 5)
	rotate(t, &second, 6)
	first.Cryptoperiod.Period, first.MAC = 0, "mac of phi, rotated"
	change(t, st, func(tx store.Tx) error { return tx.UpdateKey(ctx, first) })
	refused(t, st, api.CodeConflict, "a stale revision", func(tx store.Tx) error { return tx.UpdateKey(ctx, second) })
	gone := newKey(t, "gone", 1)
	refused(t, st, api.CodeConflict, "updating what isn't there", func(tx store.Tx) error { return tx.UpdateKey(ctx, gone) })
	first.Revision++
	var stored keys.Key
	view(t, st, func(tx store.Tx) (err error) { stored, err = tx.KeyByID(ctx, k.ID); return err })
	if !reflect.DeepEqual(stored, first) {
		t.Errorf("after two updates:\ngot  %+v\nwant %+v", stored, first)
	}
	fewer := stored.Clone()
	fewer.Versions = fewer.Versions[:1]
	refused(t, st, api.CodeInternal, "taking a version away", func(tx store.Tx) error { return tx.UpdateKey(ctx, fewer) })
}

// pages: every page is complete, in byte order, and ends are exact (ADVISORIES row 82: nothing is cut off silently).
func pages(t *testing.T, st store.Store) {
	ctx := t.Context()
	change(t, st, func(tx store.Tx) error {
		for i := range 9 {
			if err := tx.CreateKey(ctx, newKey(t, "list-"+strconv.Itoa(i), i%3+1)); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, st, func(tx store.Tx) error {
		var names []string
		for after := ""; ; {
			page, err := tx.Keys(ctx, after, 4)
			if err != nil {
				return err
			}
			for _, k := range page {
				names = append(names, k.Name)
				if n := k.Name[len(k.Name)-1]; k.Name != "phi" && len(k.Versions) != int(n-'0')%3+1 {
					t.Errorf("%s is listed with %d versions", k.Name, len(k.Versions))
				}
			}
			if len(page) < 4 {
				break
			}
			after = page[len(page)-1].Name
		}
		want := []string{"list-0", "list-1", "list-2", "list-3", "list-4", "list-5", "list-6", "list-7", "list-8", "phi"}
		if !reflect.DeepEqual(names, want) {
			t.Errorf("the pages list %q, want %q", names, want)
		}
		n, states, err := tx.CountKeys(ctx)
		if want := map[keys.State]int{keys.Active: 10, keys.Deactivated: 11}; n != 10 || !reflect.DeepEqual(states, want) {
			t.Errorf("CountKeys = %d, %v, want 10, %v", n, states, want)
		}
		return err
	})
}

func testKeyVersions(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	k := newKey(t, "phi", 2)
	change(t, st, func(tx store.Tx) error { return tx.CreateKey(ctx, k) })
	move := func(n uint32, to keys.State) keys.Transition {
		t.Helper()
		tr, err := k.Move(n, to, at(100), "tester", "move", 7)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	save := func(trs ...keys.Transition) {
		t.Helper()
		k.Revision++
		change(t, st, func(tx store.Tx) error {
			if err := tx.UpdateKey(ctx, k); err != nil {
				return err
			}
			return tx.AddTransitions(ctx, k.ID, trs)
		})
	}
	// The active version moves to a lower number within one update: the index that forbids two must not see both.
	all := []keys.Transition{move(2, keys.Suspended)}
	k.Versions[0].State = keys.Active
	save(all...)
	k.Versions[0].State = keys.Deactivated
	all = append(all, move(1, keys.DestroyScheduled))
	save(all[1])
	gone, err := k.Destroy(1, at(100).Add(8*24*time.Hour), "tester", "end")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, gone)
	save(gone)
	k.Revision++
	view(t, st, func(tx store.Tx) error {
		stored, err := tx.KeyByID(ctx, k.ID)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(stored, k) {
			t.Errorf("after the moves:\ngot  %+v\nwant %+v", stored, k)
		}
		if stored.Versions[0].Wrapped != nil {
			t.Error("a destroyed version still has material")
		}
		history, err := tx.Transitions(ctx, k.ID)
		if !reflect.DeepEqual(history, all) {
			t.Errorf("history:\ngot  %+v\nwant %+v", history, all)
		}
		return err
	})
	refused(t, st, api.CodeNotFound, "the history of nothing", func(tx store.Tx) error {
		return tx.AddTransitions(ctx, envelope.NewKeyID(), all)
	})
	badVersions(t, st, k)
}

// badVersions: what no room ever asks for, and what the tables refuse should one do it by mistake.
func badVersions(t *testing.T, st store.Store, k keys.Key) {
	ctx := t.Context()
	two := k.Clone()
	two.Versions[0].State, two.Versions[1].State = keys.Active, keys.Active
	refused(t, st, api.CodeConflict, "two active versions", func(tx store.Tx) error { return tx.UpdateKey(ctx, two) })
	undead := k.Clone()
	undead.Versions[0].Wrapped = []byte("back")
	refused(t, st, api.CodeInvalid, "material of a destroyed version", func(tx store.Tx) error { return tx.UpdateKey(ctx, undead) })
	gap := newKey(t, "gap", 2)
	gap.Versions[1].Number = 3
	refused(t, st, api.CodeInternal, "a gap in the numbers", func(tx store.Tx) error { return tx.CreateKey(ctx, gap) })
	view(t, st, func(tx store.Tx) error {
		stored, err := tx.KeyByID(ctx, k.ID)
		if !reflect.DeepEqual(stored, k) {
			t.Errorf("a refused update left its mark: %+v", stored)
		}
		return err
	})
}
