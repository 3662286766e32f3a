package storetest

import (
	"reflect"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/store"
)

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.Kind() == reflect.Slice && g.Len() == 0 && w.Len() == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

func testPrincipals(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	ann := access.Principal{ID: "p1", Name: "ann", Role: access.RoleOwner, Scope: []string{"*"}, Created: epoch, MadeBy: "system", MAC: "mac of ann"}
	bob := access.Principal{ID: "p2", Name: "bob", Role: access.RoleApplication, Scope: []string{"key/a", `key/"b"`},
		Allow: []access.Action{access.KeyExport}, Disabled: true, Created: at(1)}
	nobody := access.Principal{ID: "p3", Name: "Ann", Role: access.RoleAuditor, Created: at(2)}
	change(t, st, func(tx store.Tx) error {
		for _, p := range []access.Principal{bob, ann, nobody} {
			if err := tx.CreatePrincipal(ctx, p); err != nil {
				return err
			}
		}
		wantCode(t, tx.CreatePrincipal(ctx, access.Principal{ID: "p9", Name: "bob"}), api.CodeConflict, "a taken name")
		wantCode(t, tx.CreatePrincipal(ctx, access.Principal{ID: "p1", Name: "carol"}), api.CodeConflict, "a taken id")
		return nil
	})
	ann.Revision, bob.Revision, nobody.Revision = 1, 1, 1
	changed := bob
	changed.Disabled, changed.Scope, changed.Allow, changed.MAC = false, nil, nil, "mac of bob"
	change(t, st, func(tx store.Tx) error { return tx.UpdatePrincipal(ctx, changed) })
	refused(t, st, api.CodeConflict, "a stale revision", func(tx store.Tx) error { return tx.UpdatePrincipal(ctx, bob) })
	changed.Revision++

	view(t, st, func(tx store.Tx) error {
		list, err := tx.Principals(ctx)
		wantEqual(t, "the principals in byte order", list, []access.Principal{nobody, ann, changed})
		if err != nil {
			return err
		}
		byID, err := tx.PrincipalByID(ctx, "p1")
		if err != nil {
			return err
		}
		byName, err := tx.PrincipalByName(ctx, "ann")
		wantEqual(t, "by id", byID, ann)
		wantEqual(t, "by name", byName, ann)
		return err
	})
	refused(t, st, api.CodeNotFound, "another case", func(tx store.Tx) error { _, err := tx.PrincipalByName(ctx, "ANN"); return err })
	refused(t, st, api.CodeNotFound, "an unknown id", func(tx store.Tx) error { _, err := tx.PrincipalByID(ctx, "ann"); return err })
	tokens(t, st)
}

func tokens(t *testing.T, st store.Store) {
	ctx := t.Context()
	old := access.Token{ID: "t1", PrincipalID: "p1", Hash: [32]byte{1, 0, 31: 9}, Created: at(1), Expires: at(100), IssuedBy: "p2", MAC: "mac 1"}
	young := access.Token{ID: "t0", PrincipalID: "p1", Created: at(2)}
	change(t, st, func(tx store.Tx) error {
		if err := tx.PutToken(ctx, old); err != nil {
			return err
		}
		return tx.PutToken(ctx, young)
	})
	// Of a token that is there only its end may change: not its holder, not its hash, not who issued it.
	bent := old
	bent.PrincipalID, bent.Hash, bent.Created, bent.IssuedBy = "p2", [32]byte{7}, at(9), "p1"
	bent.Revoked, bent.Expires, bent.MAC = at(50), at(60), "mac 2"
	change(t, st, func(tx store.Tx) error { return tx.PutToken(ctx, bent) })
	old.Revoked, old.Expires, old.MAC = bent.Revoked, bent.Expires, bent.MAC

	view(t, st, func(tx store.Tx) error {
		one, err := tx.TokenByID(ctx, "t1")
		if err != nil {
			return err
		}
		wantEqual(t, "the token", one, old)
		list, err := tx.TokensOf(ctx, "p1")
		wantEqual(t, "the tokens, newest first", list, []access.Token{young, old})
		return err
	})
	refused(t, st, api.CodeNotFound, "an unknown token", func(tx store.Tx) error { _, err := tx.TokenByID(ctx, "T1"); return err })
	refused(t, st, api.CodeNotFound, "a token of nobody", func(tx store.Tx) error {
		return tx.PutToken(ctx, access.Token{ID: "t2", PrincipalID: "p7"})
	})
}
