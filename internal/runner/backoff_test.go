package runner

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Five attempts, at exactly the times that the rule gives, on a clock that only moves when everything waits.
func TestRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var tries []time.Duration
		begun := time.Now()
		failing := funcHandler{"fail", func(context.Context, *Run) error {
			tries = append(tries, time.Since(begun).Truncate(100*time.Millisecond))
			return fault.New(api.CodeUnavailable, "reading the rows: the database is away")
		}}
		r := newRunner(t, st, Config{Exclusive: true, Jitter: func() float64 { return 0.5 }}, failing)
		start(t, r)
		j := enqueue(t, st, r, jobs.Job{Kind: "fail"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		j, err := r.Wait(ctx, j.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if j.State != jobs.Failed || j.Attempts != 5 || j.Error != "reading the rows: the database is away" {
			t.Errorf("%+v", j)
		}
		s := time.Second
		if want := []time.Duration{0, 1 * s, 5 * s, 21 * s, 85 * s}; !slices.Equal(tries, want) {
			t.Errorf("tried at %v, want %v", tries, want)
		}
	})
}

// Who mended what a job waits for has it tried at once, whichever word is used; what it failed by, and how often, stays until then.
// Asked again before it runs, nothing goes wrong.
func TestAnAttemptIsMadeNow(t *testing.T) {
	for name, v := range map[string]verb{"retry": (*Runner).Retry, "resume": (*Runner).Resume} {
		synctest.Test(t, func(t *testing.T) {
			st := openStore(t)
			away := true
			var tries []time.Duration
			begun := time.Now()
			r := newRunner(t, st, Config{Exclusive: true, Jitter: func() float64 { return 0.5 }}, funcHandler{"k", func(context.Context, *Run) error {
				if tries = append(tries, time.Since(begun).Truncate(100*time.Millisecond)); away {
					return fault.New(api.CodeUnavailable, "the database is away")
				}
				return nil
			}})
			start(t, r)
			id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
			<-time.After(10 * time.Second) // the next attempt is at 21 s
			away = false
			change(t, st, func(tx store.Tx) error { // one transaction, so that nobody claims the job in between
				for range 2 {
					j, err := v(r, t.Context(), tx, id)
					if err != nil || j.State != jobs.Queued || j.NextAttempt.After(time.Now()) || j.Attempts != 3 || j.Error == "" {
						t.Errorf("%s: %+v %v", name, j, err)
					}
				}
				return nil
			})
			if j := wait(t, r, id); j.State != jobs.Done {
				t.Errorf("%s: %+v", name, j)
			}
			if s := time.Second; !slices.Equal(tries, []time.Duration{0, 1 * s, 5 * s, 10 * s}) {
				t.Errorf("%s: tried at %v", name, tries)
			}
		})
	}
}
