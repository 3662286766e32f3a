package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, address string) store.Store {
	t.Helper()
	st, err := postgres.Open(t.Context(), address, postgres.Config{})
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func acquire(t *testing.T, st store.Store, node string) (h audit.Head) {
	t.Helper()
	err := st.Change(t.Context(), func(tx store.Tx) (err error) {
		h, err = tx.AcquireShard(t.Context(), node, epoch, time.Hour)
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", node, err)
	}
	return h
}

func segment(h audit.Head) *audit.Segment {
	return &audit.Segment{Shard: h.Shard, Seq: h.Seq + 1, Epoch: h.Epoch, First: h.Size, Count: 1, FirstTime: epoch, LastTime: epoch,
		Lines: []byte("{}"), Nonce: "n"}
}

// TestNodesStartTogether: several nodes meet an empty database at once; one makes the tables, all get the same store, and
// each gets a shard of its own.
func TestNodesStartTogether(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	const nodes = 4
	stores, shards := make([]store.Store, nodes), make([]int, nodes)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			st, err := postgres.Open(t.Context(), u, postgres.Config{MaxConns: 4})
			if err != nil {
				t.Errorf("node %d: %v: %v", i, err, errors.Unwrap(err))
				return
			}
			h := acquire(t, st, string(rune('a'+i)))
			stores[i], shards[i] = st, h.Shard
			for range 20 {
				if err := st.Append(t.Context(), segment(h)); err != nil {
					t.Errorf("node %d: %v", i, err)
				}
				h.Seq, h.Size = h.Seq+1, h.Size+1
			}
		})
	}
	wg.Wait()
	seen := map[int]bool{}
	for i, st := range stores {
		if st == nil {
			continue
		}
		defer st.Close()
		if st.ID() != stores[0].ID() {
			t.Errorf("node %d works on another store", i)
		}
		if seen[shards[i]] {
			t.Errorf("two nodes hold shard %d", shards[i])
		}
		seen[shards[i]] = true
	}
}

// TestAppendWaitsForTheEpoch: an append that begins while another node is taking the shard waits for that node's commit,
// and is fenced by it. Without the lock it would be judged by the epoch of before.
func TestAppendWaitsForTheEpoch(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	old, taker := open(t, u), open(t, u)
	h := acquire(t, old, "old")
	result := make(chan error, 1)
	err := taker.Change(t.Context(), func(tx store.Tx) error {
		if _, err := tx.AcquireShard(t.Context(), "taker", epoch.Add(2*time.Hour), time.Hour); err != nil {
			return err
		}
		go func() { result <- old.Append(context.WithoutCancel(t.Context()), segment(h)) }()
		for waiting := false; !waiting && len(result) == 0; { // until the append stands in the queue for the row
			err := old.DB().QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE NOT l.granted AND a.datname = current_database())`).Scan(&waiting)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, audit.ErrFenced) {
		t.Errorf("the append of a node that lost its shard: %v, want ErrFenced", err)
	}
}

// TestAStoppedNodeHoldsNobodyUp: a process that stands still in the midst of a transaction, as SIGSTOP or a frozen machine
// leaves it, holds its locks only until the server takes its transaction back. Whoever waits for them goes on; the process
// that wakes up finds that nothing of it happened, wherever in its transaction it stood, and works on.
func TestAStoppedNodeHoldsNobodyUp(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	other := open(t, u)
	ctx := t.Context()
	for name, last := range map[string]func(store.Tx) error{
		"before a statement":  func(tx store.Tx) error { return tx.SetMeta(ctx, "b", "stopped") },
		"before its commit":   func(store.Tx) error { return nil },
		"before its rollback": func(store.Tx) error { return errors.New("mine") },
	} {
		t.Run(name, func(t *testing.T) {
			stopped, err := postgres.Open(ctx, u, postgres.Config{IdleInTransaction: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer stopped.Close()
			runs := 0
			err = stopped.Change(ctx, func(tx store.Tx) error {
				runs++
				if err := tx.SetMeta(ctx, "a", "stopped"); err != nil {
					return err
				}
				// It stands still until somebody else has changed the row that it holds.
				bounded, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				if err := other.Change(bounded, func(tx store.Tx) error { return tx.SetMeta(bounded, "a", "other") }); err != nil {
					t.Errorf("the other node: %v", err)
				}
				return last(tx)
			})
			if name == "before its rollback" {
				if err == nil || err.Error() != "mine" {
					t.Errorf("its own error became %v", err)
				}
			} else if fault.CodeOf(err) != api.CodeUnavailable || errors.Is(err, store.ErrCommitUnknown) {
				t.Errorf("it was told %v, want that nothing happened", err)
			}
			err = other.View(ctx, func(tx store.Tx) error {
				a, err := tx.Meta(ctx, "a")
				if b, _ := tx.Meta(ctx, "b"); a != "other" || b != "" {
					t.Errorf("a = %q and b = %q: something of it happened", a, b)
				}
				return err
			})
			if err != nil || runs != 1 {
				t.Errorf("%d runs, %v", runs, err)
			}
			if err := stopped.Change(ctx, func(tx store.Tx) error { return tx.SetMeta(ctx, "c", "again") }); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestDeadlockRunsAgain: two transactions that lock the same rows in opposite orders both succeed in the end.
func TestDeadlockRunsAgain(t *testing.T) {
	st := open(t, pgtest.Start(t).Database(t))
	ctx := t.Context()
	err := st.Change(ctx, func(tx store.Tx) error {
		return errors.Join(tx.SetMeta(ctx, "a", ""), tx.SetMeta(ctx, "b", ""))
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var met sync.WaitGroup
	met.Add(2)
	runs := make(chan string, 100)
	for _, order := range []string{"ab", "ba"} {
		first := true
		wg.Go(func() {
			err := st.Change(ctx, func(tx store.Tx) error {
				runs <- order
				if err := tx.SetMeta(ctx, order[:1], order); err != nil {
					return err
				}
				if first {
					first = false
					met.Done()
					met.Wait() // both hold their first row
				}
				return tx.SetMeta(ctx, order[1:], order)
			})
			if err != nil {
				t.Errorf("%s: %v", order, err)
			}
		})
	}
	wg.Wait()
	if len(runs) < 3 {
		t.Errorf("the functions ran %d times: there was no deadlock", len(runs))
	}
}

// TestSchemas: tables live in a schema of keyturn's own or in the one that the URL names, beside whatever else is there.
func TestSchemas(t *testing.T) {
	s := pgtest.Start(t)
	u := s.Database(t)
	if err := s.Exec(t.Context(), u, "CREATE TABLE keys (something int)", "CREATE TABLE river_job (else_ int)"); err != nil {
		t.Fatal(err)
	}
	one, two := open(t, u), open(t, with(t, u, "search_path", "second"))
	if one.ID() == two.ID() {
		t.Error("two schemas hold the same store")
	}
	for _, st := range []store.Store{one, two} {
		var schema string
		if err := st.DB().QueryRow(`SELECT current_schema()`).Scan(&schema); err != nil || schema == "public" {
			t.Errorf("the tables are in %q (%v)", schema, err)
		}
	}
}

func TestMissingRightsAreExplained(t *testing.T) {
	s := pgtest.Own(t, pgtest.Options{})
	u := s.Database(t)
	if err := s.Exec(t.Context(), u, "CREATE ROLE weak LOGIN"); err != nil {
		t.Fatal(err)
	}
	_, err := postgres.Open(t.Context(), strings.Replace(u, "keyturn@", "weak@", 1), postgres.Config{})
	if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "may not create") || fault.NextOf(err) == "" {
		t.Errorf("got %v (next: %s)", err, fault.NextOf(err))
	}
}

func TestNewerTablesAreRefused(t *testing.T) {
	s := pgtest.Start(t)
	u := s.Database(t)
	open(t, u)
	if err := s.Exec(t.Context(), u, `INSERT INTO keyturn.migrations (version_id, is_applied) VALUES (900, true)`); err != nil {
		t.Fatal(err)
	}
	_, err := postgres.Open(t.Context(), u, postgres.Config{})
	if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "version 900") || fault.NextOf(err) == "" {
		t.Errorf("got %v (next: %s)", err, fault.NextOf(err))
	}
}

// TestSumsDontCollide: changes of two nodes that write different sums of rows, of the few in their table, don't make each other run again.
func TestSumsDontCollide(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	ctx, a, b := t.Context(), open(t, u), open(t, u)
	err := a.Change(ctx, func(tx store.Tx) error {
		for bucket := range 31 {
			if err := tx.PutRowSum(ctx, store.RowSum{Bucket: bucket, Seq: 1, Sealed: make([]byte, 120)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	next := func(tx store.Tx, bucket int) error {
		s, err := tx.RowSum(ctx, bucket)
		if err != nil {
			return err
		}
		s.Seq++
		return tx.PutRowSum(ctx, s)
	}
	const rounds = 20
	runs := 0
	for i := range rounds {
		err := a.Change(ctx, func(tx store.Tx) error {
			runs++
			if err := next(tx, i); err != nil {
				return err
			}
			return b.Change(ctx, func(other store.Tx) error { return next(other, (i+5)%31) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if runs != rounds {
		t.Errorf("%d changes ran %d times", rounds, runs)
	}
}
