package reencrypt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

var errBroken = fault.New(api.CodeUnavailable, "the connection broke")

// memory is a table in memory with rows 1 to n in clear, and a run over it.
func memory(tb testing.TB, n int, kind reencrypt.Kind) (*connectortest.Memory, *connectortest.KeySet, reencrypt.Work) {
	tb.Helper()
	m, keys := &connectortest.Memory{}, connectortest.NewKeySet(envelope.SuiteStandard)
	for i := range n {
		m.Put(int64(i+1), plain(i+1))
	}
	d := datasets.Dataset{DSNEnv: "X", Table: "t", PK: []string{"id"}, Context: datasets.DefaultTemplate("", []string{"id"}),
		Columns: []datasets.Column{{Name: "v", KeyID: keys.ID()}}}
	template, err := datasets.Compile(&d, "v")
	if err != nil {
		tb.Fatal(err)
	}
	w := reencrypt.Work{Kind: kind, Target: m, PK: d.PK, Batch: 10, Columns: []reencrypt.WorkColumn{{Name: "v", Context: template, Keys: keys}}}
	return m, keys, w
}

func plain(id int) string { return fmt.Sprintf("value %d", id) }

// opened is what a row holds, opened.
func opened(tb testing.TB, m *connectortest.Memory, keys *connectortest.KeySet, id int) string {
	tb.Helper()
	return connectortest.Open(tb, "t", []string{"id"}, []string{fmt.Sprint(id)}, "v", keys, []byte(m.Get(int64(id))))
}

// kinded is the same run of another kind.
func kinded(w reencrypt.Work, kind reencrypt.Kind) reencrypt.Work {
	w.Kind = kind
	return w
}

func TestFinishesWhatItShould(t *testing.T) {
	m, keys, w := memory(t, 995, reencrypt.KindEncrypt)
	if c := connectortest.MustFinish(t, w); c.Changed != 995 || c.Rows != 995 {
		t.Errorf("encrypt counted %+v", c)
	}
	keys.Rotate()
	if c := connectortest.MustFinish(t, kinded(w, reencrypt.KindReencrypt)); c.Changed != 995 || c.Opened != 995 {
		t.Errorf("re-encrypt counted %+v", c)
	}
	if keys.Spent() != 2*995 {
		t.Errorf("%d seals were accounted for, not %d", keys.Spent(), 2*995)
	}
	for id := 1; id <= 995; id++ {
		if got := opened(t, m, keys, id); got != plain(id) {
			t.Fatalf("row %d holds %q", id, got)
		}
	}
}

// TestP5CrashRepeatsOneBatch abandons a run at a random moment, again and again, as a crash would: what the next one
// starts from is what was saved, not what the last one knew. No row is written twice, because what was moved is seen.
func TestP5CrashRepeatsOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 2000, reencrypt.KindEncrypt)
		random := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex // two writers draw from random
		upTo := func(n int) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(random.IntN(n)) * time.Millisecond
		}
		m.BeforeSwap = func(int) error { <-time.After(upTo(100)); return nil } // on the bubble's clock
		var r connectortest.Run
		crashes := 0
		for {
			ctx, cancel := context.WithCancel(t.Context())
			timer := time.AfterFunc(upTo(3000), cancel)
			s := r.State
			done, err := w.Advance(ctx, &s, time.Now().Add(time.Hour), r.Save)
			timer.Stop()
			cancel()
			if done && err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("after %d crashes: %v", crashes, err)
			}
			crashes++
		}
		for id := 1; id <= 2000; id++ {
			if n := m.Written(int64(id)); n != 1 || opened(t, m, keys, id) != plain(id) {
				t.Fatalf("row %d was written %d times", id, n)
			}
		}
		if crashes == 0 {
			t.Error("nothing was interrupted")
		}
		t.Logf("%d crashes", crashes)
	})
}

// TestCursorIsBehindWhatIsAcknowledged has writers finish out of order: the cursor that is saved never stands behind a page
// that isn't written, whatever was finished after it.
func TestCursorIsBehindWhatIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 500, reencrypt.KindEncrypt)
		var calls atomic.Int64
		m.BeforeSwap = func(int) error {
			if calls.Add(1) == 3 {
				<-time.After(10 * time.Second) // one writer hangs on its page while the other goes on
			}
			return nil
		}
		var s reencrypt.State
		saves := 0
		done, err := w.Advance(t.Context(), &s, time.Now().Add(time.Hour), func(_ context.Context, s *reencrypt.State, p *reencrypt.Progress) error {
			saves++
			if p == nil || s.Cursor == nil {
				return nil
			}
			for id := int64(1); id <= int64(s.Cursor[11])+int64(s.Cursor[10])<<8; id++ {
				if m.Written(id) == 0 {
					t.Errorf("the cursor stands behind row %d, which isn't written", id)
				}
			}
			return nil
		})
		if !done || err != nil || saves < 5 {
			t.Errorf("done %v, %v, after %d saves", done, err, saves)
		}
	})
}

// TestAmbiguousCommit breaks connections after the commit: nobody knows then whether the page was written. It was, and is
// seen to be.
func TestAmbiguousCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 300, reencrypt.KindEncrypt)
		var calls atomic.Int64
		m.AfterSwap = func(int) error {
			if calls.Add(1)%3 == 0 {
				return errBroken
			}
			return nil
		}
		connectortest.MustFinish(t, w)
		for id := 1; id <= 300; id++ {
			if m.Written(int64(id)) != 1 || opened(t, m, keys, id) != plain(id) {
				t.Errorf("row %d was written %d times", id, m.Written(int64(id)))
			}
		}
	})
}

// TestDatabaseGoesAway: with progress in between, a run goes on; without, it gives up with unavailable and can be taken up.
func TestDatabaseGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 300, reencrypt.KindEncrypt)
		var down atomic.Bool
		m.BeforeSwap = func(int) error {
			if down.Load() {
				return errBroken
			}
			return nil
		}
		var r connectortest.Run
		down.Store(true)
		begun := time.Now()
		if err := r.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeUnavailable || time.Since(begun) > 5*time.Second {
			t.Fatalf("with the database down, after %v: %v", time.Since(begun), err)
		}
		down.Store(false)
		if err := r.Finish(t.Context(), w); err != nil || r.State.Counts.Changed != 300 {
			t.Errorf("with the database back: %+v, %v", r.State, err)
		}
	})
}

// TestEveryFaultAtEveryPlace fails the n-th read, swap, flush or census, for every n until the run needs no more of them
// (row 2 of the faults): it always ends, with every row written once.
func TestEveryFaultAtEveryPlace(t *testing.T) {
	places := map[string]func(*connectortest.Memory, func() error){
		"read":         func(m *connectortest.Memory, f func() error) { m.BeforeRead = f },
		"swap":         func(m *connectortest.Memory, f func() error) { m.BeforeSwap = func(int) error { return f() } },
		"after commit": func(m *connectortest.Memory, f func() error) { m.AfterSwap = func(int) error { return f() } },
		"flush":        func(m *connectortest.Memory, f func() error) { m.BeforeFlush = f },
		"census":       func(m *connectortest.Memory, f func() error) { m.BeforeCensus = f },
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); ; n++ {
				hit := false
				synctest.Test(t, func(t *testing.T) {
					m, keys, w := memory(t, 45, reencrypt.KindEncrypt)
					var calls atomic.Int64
					place(m, func() error {
						if calls.Add(1) == n {
							hit = true
							return errBroken
						}
						return nil
					})
					connectortest.MustFinish(t, w)
					for id := 1; id <= 45; id++ {
						if m.Written(int64(id)) != 1 || opened(t, m, keys, id) != plain(id) {
							t.Errorf("fault %d: row %d was written %d times", n, id, m.Written(int64(id)))
						}
					}
				})
				if !hit {
					break
				}
			}
		})
	}
}

// TestSaveFails: when the state can't be kept, the chunk ends with that error and nothing more is written.
func TestSaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 10000, reencrypt.KindEncrypt)
		m.BeforeSwap = func(int) error { <-time.After(50 * time.Millisecond); return nil }
		lost := errors.New("lost")
		var s reencrypt.State
		done, err := w.Advance(t.Context(), &s, time.Now().Add(time.Hour), func(context.Context, *reencrypt.State, *reencrypt.Progress) error { return lost })
		if done || !errors.Is(err, lost) {
			t.Fatalf("done %v, %v", done, err)
		}
		if m.Written(9000) != 0 {
			t.Error("the run went on although its state was lost")
		}
	})
}

// TestP6ApplicationWins: rows that the application writes between our reading and our writing are conflicts, stay as the
// application wants them, and are done by a later pass.
func TestP6ApplicationWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 100, reencrypt.KindEncrypt)
		var once sync.Once // which holds the other writers until all of it is written
		m.BeforeSwap = func(int) error {
			once.Do(func() {
				for id := 1; id <= 100; id += 10 {
					m.Put(int64(id), "theirs")
				}
			})
			return nil
		}
		c := connectortest.MustFinish(t, w)
		if c.Changed != 100 || c.Conflicts == 0 || c.Conflicts > 10 {
			t.Errorf("counted %+v", c)
		}
		for id := 1; id <= 100; id++ {
			want := plain(id)
			if id%10 == 1 {
				want = "theirs"
			}
			if got := opened(t, m, keys, id); got != want {
				t.Errorf("row %d holds %q, want %q", id, got, want)
			}
		}
	})
}

// TestTimeIsUp: a chunk ends in an orderly way, with everything on its way written and saved.
func TestTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 10000, reencrypt.KindEncrypt)
		m.BeforeSwap = func(int) error { <-time.After(100 * time.Millisecond); return nil }
		var r connectortest.Run
		begun := time.Now()
		done, err := w.Advance(t.Context(), &r.State, begun.Add(3*time.Second), r.Save)
		if done || err != nil {
			t.Fatalf("done %v, %v", done, err)
		}
		if took := time.Since(begun); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the chunk took %v", took)
		}
		for id := int64(1); id <= r.State.Counts.Rows; id++ {
			if m.Written(id) != 1 {
				t.Errorf("row %d counts as done and was written %d times", id, m.Written(id))
			}
		}
		if m.Written(r.State.Counts.Rows+1) != 0 {
			t.Error("a row was written that doesn't count")
		}
	})
}

// TestNoPageIsBegunLate: where a page takes seconds, a chunk ends with those that were begun in its time; the others stay
// for the next one, also when the reader has seen the table's end.
func TestNoPageIsBegunLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 30, reencrypt.KindEncrypt)
		w.Columns[0].Keys = slow{keys}
		var r connectortest.Run
		begun := time.Now()
		done, err := w.Advance(t.Context(), &r.State, begun.Add(12*time.Second), r.Save)
		if took := time.Since(begun); done || err != nil || took > 20*time.Second+saveTime || r.State.Sweep {
			t.Fatalf("after %v: done %v, %v, %+v", took, done, err, r.State)
		}
		if c := r.State.Counts; c.Rows != 20 || c.Changed != 20 || m.Written(20) != 1 || m.Written(21) != 0 {
			t.Errorf("counted %+v", c)
		}
		if err := r.Finish(t.Context(), w); err != nil || r.State.Counts.Rows != 30 || r.State.Counts.Changed != 30 {
			t.Errorf("counted %+v, %v", r.State.Counts, err)
		}
	})
}

// saveTime is what the end of a pass may take on top.
const saveTime = time.Second

// slow are keys that take ten seconds for each page.
type slow struct{ *connectortest.KeySet }

func (s slow) Spend(ctx context.Context, operations, bytes uint64) error {
	<-time.After(10 * time.Second) // on the bubble's clock
	return s.KeySet.Spend(ctx, operations, bytes)
}

// TestRate: a run keeps to its rate, and rows in which nothing is to be done cost a sixteenth.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, keys, w := memory(t, 3000, reencrypt.KindEncrypt)
		w.Rate, w.Batch = 1000, 100
		took := func() time.Duration {
			begun := time.Now()
			connectortest.MustFinish(t, w)
			return time.Since(begun)
		}
		if d := took(); d < 2900*time.Millisecond || d > 3200*time.Millisecond {
			t.Errorf("3000 rows at 1000 a second took %v", d)
		}
		if d := took(); d > 300*time.Millisecond {
			t.Errorf("3000 rows in which nothing is to be done took %v", d)
		}
		keys.Rotate()
	})
}
