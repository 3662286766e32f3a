package runner

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// served notes for which due times its jobs were made.
type served struct {
	mu  sync.Mutex
	due []time.Time
}

func (*served) Kind() string { return "check" }

func (s *served) Run(_ context.Context, run *Run) error {
	var args jobs.Scheduled
	if err := json.Unmarshal(run.Job.Args, &args); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = append(s.due, args.Due)
	return nil
}

func (s *served) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.due...)
}

func schedules(t *testing.T, st store.Store) map[string]jobs.Schedule {
	t.Helper()
	out := map[string]jobs.Schedule{}
	err := st.View(t.Context(), func(tx store.Tx) error {
		list, err := tx.Schedules(t.Context())
		for _, s := range list {
			out[s.Name] = s
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A schedule is served at its minute, each time once; what was missed while nothing ran is served once, for the latest time.
func TestSchedulesAreServedAtTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, h := openStore(t), &served{}
		begin := time.Now().UTC() // midnight, by synctest's clock
		put := jobs.Schedule{Name: "minutely", Kind: "check", Cron: "* * * * *", NextRun: begin.Add(-3*time.Hour + 30*time.Second)}
		change(t, st, func(tx store.Tx) error { return tx.PutSchedule(t.Context(), put) })
		change(t, st, func(tx store.Tx) error {
			return tx.PutSchedule(t.Context(), jobs.Schedule{Name: "others", Kind: "of-a-newer-node", Cron: "* * * * *", NextRun: begin.Add(-time.Hour)})
		})
		r := newRunner(t, st, Config{Exclusive: true}, h)
		start(t, r)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.KeepSchedules(ctx) }()
		time.Sleep(5*time.Minute + 10*time.Second) // of a clock that moves only while everybody waits
		stop()
		<-done
		got := h.times()
		if len(got) != 6 || !got[0].Equal(begin) {
			t.Fatalf("served for %v, from %v on", got, begin)
		}
		for i := 1; i < len(got); i++ {
			if !got[i].Equal(begin.Add(time.Duration(i) * time.Minute)) {
				t.Errorf("time %d is %v", i, got[i])
			}
		}
		s := schedules(t, st)
		if m := s["minutely"]; !m.LastRun.Equal(begin.Add(5*time.Minute)) || !m.NextRun.Equal(begin.Add(6*time.Minute)) || read(t, st, m.LastJob).State != jobs.Done {
			t.Errorf("%+v", m)
		}
		if o := s["others"]; !o.NextRun.Equal(begin.Add(-time.Hour)) || !o.LastRun.IsZero() {
			t.Errorf("a schedule of a kind that nobody here runs was moved: %+v", o)
		}
	})
}

// While a schedule's job hasn't ended, no second one is made; the times that pass meanwhile are not made up for.
func TestALongJobServesItsScheduleAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var runs atomic.Int64
		slow := funcHandler{"check", func(ctx context.Context, run *Run) error {
			if runs.Add(1) < 20 {
				time.Sleep(15 * time.Second)
				return Again
			}
			return nil
		}}
		change(t, st, func(tx store.Tx) error {
			return tx.PutSchedule(t.Context(), jobs.Schedule{Name: "minutely", Kind: "check", Cron: "* * * * *", NextRun: time.Now()})
		})
		r := newRunner(t, st, Config{Exclusive: true}, slow)
		start(t, r)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.KeepSchedules(ctx) }()
		time.Sleep(4 * time.Minute)
		stop()
		<-done
		var all []jobs.Job
		change(t, st, func(tx store.Tx) (err error) { all, err = tx.Jobs(t.Context(), jobs.Filter{}); return err })
		if len(all) != 1 {
			t.Errorf("%d jobs", len(all))
		}
	})
}

// However many processes look at the same moment, one of them serves it.
func TestASchedulesIsServedOnceByMany(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		h, ctx := &served{}, t.Context()
		var nodes []*Runner
		for _, node := range []string{"a", "b", "c"} {
			nodes = append(nodes, newRunner(t, p.mustOpen(t), p.config(node), h))
		}
		st := nodes[0].st
		now := nodes[0].clock()
		const rounds = 10
		for round := range rounds {
			due := now.Add(time.Duration(round-2*rounds) * time.Minute).Truncate(time.Minute)
			change(t, st, func(tx store.Tx) error {
				return tx.PutSchedule(ctx, jobs.Schedule{Name: "x", Kind: "check", Cron: "0 0 1 1 *", NextRun: due})
			})
			change(t, st, func(tx store.Tx) error { // the job of the round before is over
				list, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued}})
				for _, j := range list {
					if _, err := tx.Save(ctx, j.Obey(jobs.Cancel, now)); err != nil {
						return err
					}
				}
				return err
			})
			var wg sync.WaitGroup
			for _, r := range nodes {
				wg.Go(func() {
					if _, err := r.fireDue(ctx); err != nil {
						t.Errorf("%v", err)
					}
				})
			}
			wg.Wait()
		}
		var all []jobs.Job
		change(t, st, func(tx store.Tx) (err error) { all, err = tx.Jobs(ctx, jobs.Filter{}); return err })
		if len(all) != rounds {
			t.Errorf("%d jobs for %d times", len(all), rounds)
		}
	})
}

// A handler that has to wait is asked again when it said, its attempts untouched. What it waits for is said while it does, and not
// of a job that runs, nor saved again by it.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var asked []time.Time
		patient := funcHandler{"wait", func(_ context.Context, run *Run) error {
			asked = append(asked, time.Now())
			if run.Job.Attempts != 0 {
				t.Errorf("waiting counted as %d failures", run.Job.Attempts)
			}
			if len(asked) < 3 {
				return &Later{After: 10 * time.Minute, Why: "somebody else's turn"}
			}
			for range 2 {
				if j := read(t, st, run.Job.ID); j.State != jobs.Running || j.Error != "" {
					t.Errorf("a job that runs: %+v", j)
				}
				if err := run.Save(t.Context(), nil, nil, 1, 2); err != nil {
					t.Error(err)
				}
			}
			return nil
		}}
		r := newRunner(t, st, Config{Exclusive: true}, patient)
		start(t, r)
		waited := false
		j, err := r.Wait(t.Context(), enqueue(t, st, r, jobs.Job{Kind: "wait"}).ID, func(j jobs.Job) {
			if waited = waited || j.Error == "somebody else's turn"; j.Error != "" && j.State != jobs.Queued {
				t.Errorf("%+v", j)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if j.State != jobs.Done || len(asked) != 3 || !waited {
			t.Fatalf("%s after %d", j.State, len(asked))
		}
		for i := 1; i < len(asked); i++ {
			if gap := asked[i].Sub(asked[i-1]); gap < 10*time.Minute || gap > 11*time.Minute {
				t.Errorf("asked again after %v", gap)
			}
		}
	})
}

// A job's own number of tries wins over the runner's.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		failing := funcHandler{"fail", func(context.Context, *Run) error { return errNobody }}
		r := newRunner(t, st, Config{Exclusive: true, MaxAttempts: 7}, failing)
		start(t, r)
		for tries, want := range map[int]int{0: 7, 2: 2} {
			j, err := r.Wait(t.Context(), enqueue(t, st, r, jobs.Job{Kind: "fail", Tries: tries}).ID, nil)
			if err != nil || j.State != jobs.Failed || j.Attempts != want {
				t.Errorf("with %d tries: %s after %d, %v", tries, j.State, j.Attempts, err)
			}
		}
	})
}
