package postgres_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
)

// ear listens to a store's news.
type ear struct {
	t    *testing.T
	news chan store.News
}

func listen(t *testing.T, st store.Store) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &ear{t, make(chan store.News, 1000)}
	ended := make(chan struct{})
	go func() { defer close(ended); st.Listen(ctx, func(n store.News) { e.news <- n }) }()
	t.Cleanup(func() { cancel(); <-ended })
	e.await("that it listens", func(n store.News) bool { return n.All })
	return e
}

func (e *ear) await(what string, is func(store.News) bool) {
	e.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		select {
		case n := <-e.news:
			if is(n) {
				return
			}
		case <-limit:
			e.t.Fatalf("never heard: %s", what)
		}
	}
}

// TestNewsReachEveryNode: what one node commits, every node hears, this one and others; what it rolls back, nobody. A
// connection that breaks is made anew, and says that something may have been missed.
func TestNewsReachEveryNode(t *testing.T) {
	s := pgtest.Start(t)
	u := s.Database(t)
	one, two := open(t, u), open(t, u)
	ears := []*ear{listen(t, one), listen(t, two)}
	ctx := t.Context()
	k := keys.Key{ID: envelope.NewKeyID(), Name: "phi", Purpose: "phi", Algorithm: "a", Suite: 1, Created: epoch, Revision: 1}
	p := access.Principal{ID: "p", Name: "app", Role: "application", Created: epoch, Revision: 1}
	change := func(fn func(tx store.Tx) error) {
		t.Helper()
		if err := one.Change(ctx, fn); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(what string, is func(store.News) bool) {
		t.Helper()
		for _, e := range ears {
			e.await(what, is)
		}
	}
	aboutKey := func(n store.News) bool { return slices.Contains(n.Keys, k.ID) }
	change(func(tx store.Tx) error { return tx.CreateKey(ctx, k) })
	change(func(tx store.Tx) error { return tx.CreatePrincipal(ctx, p) })
	errUndo := context.Canceled
	if err := one.Change(ctx, func(tx store.Tx) error { _ = tx.UpdatePrincipal(ctx, p); return errUndo }); err != errUndo {
		t.Fatal(err)
	}
	change(func(tx store.Tx) error { return tx.UpdateKey(ctx, k) })
	for _, e := range ears { // nothing before it: neither what is new nor what was rolled back
		if n := <-e.news; !aboutKey(n) || n.SignIns || n.All {
			t.Errorf("heard %+v", n)
		}
	}
	change(func(tx store.Tx) error { return tx.UpdatePrincipal(ctx, p) })
	hear("that sign-ins changed", func(n store.News) bool { return n.SignIns })
	change(func(tx store.Tx) error {
		return tx.PutToken(ctx, access.Token{ID: "0123456789abcdef", PrincipalID: "p", Created: epoch})
	})
	hear("of a token", func(n store.News) bool { return n.SignIns })
	change(func(tx store.Tx) error {
		return tx.PutKEKs(ctx, keys.KEK{ID: "00ff", Purpose: keys.KEKData, Version: 1, Active: true, Created: epoch})
	})
	hear("of a key-encryption key, and of nothing else", func(n store.News) bool { return n.KEKs && !n.All && !n.SignIns && n.Keys == nil })
	if err := s.Exec(ctx, u, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyturn-listen' AND datname = current_database()`); err != nil {
		t.Fatal(err)
	}
	hear("that something may have been missed", func(n store.News) bool { return n.All })
	k.Revision++
	change(func(tx store.Tx) error { return tx.UpdateKey(ctx, k) })
	hear("of the key, again", aboutKey)
}

// TestNewsOfTooMuch: a transaction that changes more than a message holds says that anything may have changed.
func TestNewsOfTooMuch(t *testing.T) {
	st := open(t, pgtest.Start(t).Database(t))
	ctx := t.Context()
	list := make([]keys.Key, 300)
	err := st.Change(ctx, func(tx store.Tx) error {
		for i := range list {
			list[i] = keys.Key{ID: envelope.NewKeyID(), Name: envelope.NewKeyID().String(), Purpose: "p", Algorithm: "a", Suite: 1, Created: epoch, Revision: 1}
			if err := tx.CreateKey(ctx, list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	e := listen(t, st)
	err = st.Change(ctx, func(tx store.Tx) error {
		for _, k := range list {
			if err := tx.UpdateKey(ctx, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := <-e.news; !n.All {
		t.Errorf("heard %+v", n)
	}
}

// TestTheSharedClock: nodes agree on the database's time, whatever their own clocks say.
func TestTheSharedClock(t *testing.T) {
	st := open(t, pgtest.Start(t).Database(t))
	before := time.Now().Add(-time.Minute)
	err := st.View(t.Context(), func(tx store.Tx) error {
		now, err := tx.Now(t.Context(), epoch)
		if now.Before(before) || now.After(before.Add(2*time.Minute)) || now.Location() != time.UTC {
			t.Errorf("the database says %v", now)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
