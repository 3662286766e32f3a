package jobs

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// owned is a job in the middle of its work.
func owned() Job {
	return Job{
		ID: "0123456789abcdefghijklmn", Kind: "test", State: Running, Control: Run, Epoch: 3, Owner: "node-1",
		LeaseUntil: noon.Add(time.Minute), Attempts: 2, Error: "earlier", Cursor: []byte("c"), Done: 5, Total: 9,
		Created: noon.Add(-time.Hour), Started: noon.Add(-time.Minute),
	}
}

func TestNewFillsAndRefuses(t *testing.T) {
	j, err := New("id", Job{Kind: "test", State: Done, Control: Cancel}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if j.State != Queued || j.Control != Run || j.Priority != PriorityNormal || string(j.Args) != "{}" || !j.Created.Equal(noon) {
		t.Errorf("New gave %+v", j)
	}
	for field, bad := range map[string]Job{"kind": {}, "priority": {Kind: "test", Priority: 5}} {
		if _, err := New("id", bad, noon); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New("id", Job{Kind: "test", Priority: -1}, noon); fault.FieldOf(err) != "priority" {
		t.Errorf("priority -1: %v", err)
	}
}

// Every rule keeps to the table of transitions, releases the owner unless the job runs on, and keeps the bookmark (P5).
func TestRulesKeepToTheStateMachine(t *testing.T) {
	rows := map[string]struct {
		got  Job
		want State
	}{
		"continue":     {owned().Continue(noon.Add(time.Minute)), Running},
		"requeue":      {owned().Requeue(noon), Queued},
		"finish":       {owned().Finish(noon), Done},
		"pause":        {owned().Obey(Pause, noon), Paused},
		"cancel":       {owned().Obey(Cancel, noon), Cancelled},
		"obey run":     {owned().Obey(Run, noon), Running},
		"fail, later":  {owned().Fail(api.CodeUnavailable, "text", false, noon, 0.5, 5), Queued},
		"fail, for ay": {owned().Fail(api.CodeIntegrity, "text", false, noon, 0.5, 5), Failed},
		"fail, last":   {owned().Fail(api.CodeInternal, "text", false, noon, 0.5, 3), Failed},
		"retry":        {owned().Finish(noon).Retry(noon), Queued},
	}
	for name, row := range rows {
		j := row.got
		if j.State != row.want {
			t.Errorf("%s: state %s, want %s", name, j.State, row.want)
		}
		if !Running.MayBecome(j.State) {
			t.Errorf("%s: running may not become %s", name, j.State)
		}
		if (j.Owner != "") != (j.State == Running) {
			t.Errorf("%s: %s with owner %q", name, j.State, j.Owner)
		}
		if j.State.Final() != !j.Finished.IsZero() {
			t.Errorf("%s: %s, finished %v", name, j.State, j.Finished)
		}
		if string(j.Cursor) != "c" || j.Done != 5 || j.Epoch != 3 {
			t.Errorf("%s: lost the bookmark: %+v", name, j)
		}
	}
}

func TestFailCountsAttemptsInARow(t *testing.T) {
	j := owned().Continue(noon) // a good chunk: 0 failures
	for attempt := 1; attempt < DefaultMaxAttempts; attempt++ {
		j = j.Fail(api.CodeUnavailable, "the database is away", false, noon, 0.5, 0)
		if j.State != Queued || j.Attempts != attempt || j.Error != "the database is away" {
			t.Fatalf("attempt %d: %+v", attempt, j)
		}
		if want := noon.Add(Backoff(attempt, 0.5)); !j.NextAttempt.Equal(want) {
			t.Errorf("attempt %d: next %v, want %v", attempt, j.NextAttempt, want)
		}
	}
	if last := j.Fail(api.CodeUnavailable, "x", false, noon, 0.5, 0); last.State != Failed {
		t.Errorf("after %d failures in a row the job is %s", last.Attempts, last.State)
	}
	if again := j.Fail(api.CodeUnavailable, "x", true, noon, 0.5, 0); again.State != Queued || again.Attempts != 1 {
		t.Errorf("a chunk that moved the cursor starts the count anew: %+v", again)
	}
}

func TestWhatTimeCanHeal(t *testing.T) {
	heals := map[api.Code]bool{api.CodeUnavailable: true, api.CodeBusy: true, api.CodeConflict: true, api.CodeCancelled: true, api.CodeInternal: true}
	for _, code := range api.Codes() {
		if Retryable(code) != heals[code] {
			t.Errorf("%s: Retryable = %v", code, Retryable(code))
		}
	}
}

func TestBackoffGrowsWithinItsBounds(t *testing.T) {
	for attempt, want := range map[int]time.Duration{-1: 1, 0: 1, 1: 1, 2: 4, 3: 16, 4: 64, 5: 256, 6: 300, 7: 300, 1000: 300} {
		if got := Backoff(attempt, 0.5); got != want*time.Second {
			t.Errorf("attempt %d: %v, want %v s", attempt, got, int(want))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		attempt := rapid.IntRange(1, 50).Draw(t, "attempt")
		jitter := rapid.Float64().Draw(t, "jitter")
		d, middle := Backoff(attempt, jitter), Backoff(attempt, 0.5)
		if d < middle*8/10-1 || d > middle*12/10+1 {
			t.Fatalf("Backoff(%d, %g) = %v, outside 80-120 %% of %v", attempt, jitter, d, middle)
		}
	})
}

func TestWhoMayDoWhat(t *testing.T) {
	for _, s := range States() {
		j := Job{ID: "j", State: s}
		for name, err := range map[string]error{"pause": j.MayPause(), "resume": j.MayResume()} {
			if refused := err != nil; refused != s.Final() {
				t.Errorf("%s a %s job: %v", name, s, err)
			}
		}
		if refused := j.MayCancel() != nil; refused != (s == Done || s == Failed) {
			t.Errorf("cancel a %s job: %v", s, j.MayCancel())
		}
		if refused := j.MayRetry(0, noon) != nil; refused != (s != Failed && s != Cancelled) {
			t.Errorf("retry a %s job: %v", s, j.MayRetry(0, noon))
		}
		if refused := j.MayRetry(3, noon) != nil; refused != !s.Final() {
			t.Errorf("retry a %s job that left 3 items: %v", s, j.MayRetry(3, noon))
		}
		for _, err := range []error{j.MayPause(), j.MayResume(), j.MayCancel(), j.MayRetry(0, noon)} {
			if err != nil && fault.CodeOf(err) != api.CodeWrongState {
				t.Errorf("%s: %v has code %s", s, err, fault.CodeOf(err))
			}
		}
		// An attempt that lies ahead may be made now; what failed and waits for somebody to run it, too.
		for _, w := range []Job{{State: s, NextAttempt: noon.Add(1)}, {State: s, NextAttempt: noon, Attempts: 1}} {
			if refused := w.MayRetry(0, noon) != nil; refused != (s == Running || s == Paused || s == Done) || w.Waits(noon) != (s == Queued) {
				t.Errorf("retry a %s job that waits: %v", s, w.MayRetry(0, noon))
			}
		}
		if j.Settled() != (s.Final() || s == Paused) {
			t.Errorf("%s: Settled = %v", s, j.Settled())
		}
	}
}

func TestOrphansAndDueJobs(t *testing.T) {
	j := owned()
	if j.Orphaned(noon, "") || j.Orphaned(noon, "node-1") {
		t.Error("a job with a good lease is nobody's orphan")
	}
	if !j.Orphaned(j.LeaseUntil, "") || !j.Orphaned(noon, "node-2") {
		t.Error("an expired lease, or another owner of a store that only I can hold, makes an orphan")
	}
	if p := j.Obey(Pause, noon); p.Orphaned(noon.Add(time.Hour), "node-2") {
		t.Error("only running jobs can be orphans")
	}

	q := owned().Requeue(noon)
	q.Attempts, q.Epoch = 0, 0
	if q.Due(noon.Add(29*time.Second), 30*time.Second) || !q.Due(noon.Add(30*time.Second), 30*time.Second) {
		t.Error("a new job is due when patience has run out")
	}
	if d := owned().Defer(noon, ""); d.Due(noon.Add(-1), 30*time.Second) || !d.Due(noon, 30*time.Second) || d.State != Queued || d.Owner != "" {
		t.Error("a deferred job is due at its time")
	}
	q.Attempts = 1
	if q.Due(noon.Add(-1), 30*time.Second) || !q.Due(noon, 30*time.Second) {
		t.Error("a job that waits for another attempt is due at its time")
	}
	if j.Due(noon.Add(time.Hour), 0) {
		t.Error("a running job is not due")
	}
}

// Who waits for what is away isn't held to the job's own tries: about a day of them, and from anew after each progress.
func TestWaitIsForAboutADay(t *testing.T) {
	j, now, n := owned(), noon, 0
	j.Tries, j.Attempts = 1, 0
	for ; ; n++ {
		if j = j.Wait("away", false, now, 0.5); j.State == Failed {
			break
		}
		if j.State != Queued || j.Error != "away" || !j.NextAttempt.After(now) || j.NextAttempt.Sub(now) > backoffCap {
			t.Fatalf("%+v", j)
		}
		now = j.NextAttempt
	}
	if d := now.Sub(noon); d < 23*time.Hour || d > 25*time.Hour {
		t.Errorf("%d attempts over %s", n, d)
	}
	if j = j.Wait("away", true, now, 0.5); j.State == Failed || j.Attempts != 1 {
		t.Errorf("%+v", j)
	}
}
