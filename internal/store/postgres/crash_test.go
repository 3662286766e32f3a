package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
)

// TestServerCrash kills the server again and again under a writer. Every acknowledged append is there afterwards, an
// unknown one is there or not, nothing is there twice, and the store that was open all the time goes on by itself.
func TestServerCrash(t *testing.T) {
	s := pgtest.Own(t, pgtest.Options{})
	st := open(t, s.Database(t))
	h := acquire(t, st, "n")
	const crashes = 3
	acknowledged, unknown := 0, 0
	for range crashes {
		begun, stopped := make(chan bool, 1), make(chan error)
		go func() {
			for n := 0; ; n++ {
				if err := st.Append(t.Context(), segment(h)); err != nil {
					stopped <- err
					return
				}
				h.Seq, h.Size, acknowledged = h.Seq+1, h.Size+1, acknowledged+1
				if n == 50 {
					begun <- true
				}
			}
		}()
		<-begun
		if err := s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := <-stopped
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := head(t, st)
		switch {
		case now.Seq == h.Seq:
		case now.Seq == h.Seq+1 && errors.Is(err, store.ErrCommitUnknown):
			unknown++
		default:
			t.Fatalf("%d appends were acknowledged and %d are there; the last answer was %v", h.Seq, now.Seq, err)
		}
		h.Seq, h.Size = now.Seq, now.Size
	}
	t.Logf("%d crashes, %d acknowledged appends, 0 lost, %d unknown ones had happened", crashes, acknowledged, unknown)
}

// head waits until the store answers again, and returns its one head. Each failed attempt drops a dead connection.
func head(t *testing.T, st store.Store) (h audit.Head) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var err error
	for range 100 {
		err = st.View(ctx, func(tx store.Tx) error {
			heads, err := tx.Heads(ctx)
			if err == nil {
				h = heads[0]
			}
			return err
		})
		if err == nil {
			return h
		}
	}
	t.Fatalf("the store doesn't recover: %v: %v", err, errors.Unwrap(err))
	return h
}

// TestTerminatedSession: a session that the server ends in the middle of a transaction is an error to try again, and
// nothing of the transaction happened.
func TestTerminatedSession(t *testing.T) {
	st := open(t, pgtest.Start(t).Database(t))
	ctx := t.Context()
	err := st.Change(ctx, func(tx store.Tx) error {
		if err := tx.SetMeta(ctx, "a", "b"); err != nil {
			return err
		}
		var pid int
		if err := tx.SQL().QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		_, err := st.DB().ExecContext(ctx, `SELECT pg_terminate_backend($1, 10000)`, pid)
		return err
	})
	if fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("got %v: %v", err, errors.Unwrap(err))
	}
	if err := st.View(ctx, func(tx store.Tx) error { _, err := tx.Meta(ctx, "a"); return err }); err == nil {
		t.Error("a terminated transaction was committed")
	}
}
