package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// testConcurrency: transactions that read and then write have the effect of running one after another, those that touch
// different things all succeed, and neither keeps the audit log from growing meanwhile.
func testConcurrency(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	const workers, rounds = 6, 12
	change(t, st, func(tx store.Tx) error {
		for i := range workers {
			if err := tx.CreateKey(ctx, newKey(t, workerKey(i), 1)); err != nil {
				return err
			}
		}
		return tx.SetMeta(ctx, "counter", "0")
	})
	h := acquire(t, st, "n", at(0), time.Hour)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for range rounds {
				check(t, "counting", st.Change(ctx, func(tx store.Tx) error { return increment(ctx, tx) }))
				check(t, "changing a key of its own", st.Change(ctx, func(tx store.Tx) error { return touch(ctx, tx, workerKey(i)) }))
			}
		})
	}
	wg.Go(func() {
		for seq := uint64(1); seq <= rounds*2; seq++ {
			check(t, "appending", st.Append(ctx, segment(h.Shard, seq, h.Epoch, seq-1, 1)))
		}
	})
	wg.Wait()
	if got := meta(t, st, "counter"); got != strconv.Itoa(workers*rounds) {
		t.Errorf("the counter is %s after %d increments", got, workers*rounds)
	}
	view(t, st, func(tx store.Tx) error {
		for i := range workers {
			k, err := tx.KeyByName(ctx, workerKey(i))
			if err != nil {
				return err
			}
			if k.Revision != rounds+1 || k.Versions[0].Operations != rounds {
				t.Errorf("%s has revision %d and %d operations, want %d and %d", k.Name, k.Revision, k.Versions[0].Operations, rounds+1, rounds)
			}
		}
		return nil
	})
}

func workerKey(i int) string { return "worker-" + strconv.Itoa(i) }

func check(t *testing.T, what string, err error) {
	if err != nil {
		t.Errorf("%s: %v", what, describe(err))
	}
}

func increment(ctx context.Context, tx store.Tx) error {
	text, err := tx.Meta(ctx, "counter")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return tx.SetMeta(ctx, "counter", strconv.Itoa(n+1))
}

func touch(ctx context.Context, tx store.Tx, name string) error {
	k, err := tx.KeyByName(ctx, name)
	if err != nil {
		return err
	}
	if err := tx.UpdateKey(ctx, k); err != nil {
		return err
	}
	_, _, err = tx.ReserveUsage(ctx, k.ID, 1, 1, 1)
	return err
}

// CancelledReads guards ADVISORIES row 90: a read that is cancelled at a random moment must never hand out the row of
// another one (CVE-2025-47907). Every row says which one it is. KEYTURN_SOAK_READS sets how many; the campaign has 10^6.
func CancelledReads(t *testing.T, o Opener) {
	st := open(t, o)
	const rows, readers = 40, 8
	reads := 4000
	if n, err := strconv.Atoi(os.Getenv("KEYTURN_SOAK_READS")); err == nil {
		reads = n
	}
	change(t, st, func(tx store.Tx) error {
		for i := range rows {
			if err := tx.CreateKey(t.Context(), newKey(t, workerKey(i), 3)); err != nil {
				return err
			}
		}
		return nil
	})
	begun := time.Now()
	for i := range rows {
		if _, err := cancelledRead(t.Context(), st, workerKey(i), time.Minute); err != nil {
			t.Fatal(describe(err))
		}
	}
	longest := int(time.Since(begun)/rows) * 2 * readers // so that some reads end before their limit, and some after it
	seed := uint64(time.Now().UnixNano())
	var wg sync.WaitGroup
	var whole, cut, wrong atomic.Int64
	for r := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(r)))
			for range reads / readers {
				name := workerKey(rnd.IntN(rows))
				k, err := cancelledRead(t.Context(), st, name, time.Duration(rnd.IntN(longest)))
				switch code := fault.CodeOf(err); {
				case code == api.CodeUnavailable || code == api.CodeCancelled:
					cut.Add(1)
				case err != nil:
					t.Errorf("a read ended with %v", describe(err))
				case !belongs(k, name):
					wrong.Add(1)
				default:
					whole.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("seed %d: %d reads, %d cancelled, %d rows of another read", seed, reads, cut.Load(), wrong.Load())
	if wrong.Load() > 0 || whole.Load() == 0 || cut.Load() == 0 {
		t.Errorf("want whole and cancelled reads and no mixed one, got %d, %d and %d", whole.Load(), cut.Load(), wrong.Load())
	}
}

func cancelledRead(ctx context.Context, st store.Store, name string, limit time.Duration) (k keys.Key, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = st.View(ctx, func(tx store.Tx) (err error) { k, err = tx.KeyByName(ctx, name); return err })
	return k, err
}

func belongs(k keys.Key, name string) bool {
	if k.Name != name || len(k.Versions) != 3 {
		return false
	}
	for i, v := range k.Versions {
		if string(v.Wrapped) != fmt.Sprintf("wrapped %s %d", name, i) {
			return false
		}
	}
	return true
}
