package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// nthFails is a store whose n-th change fails: before anything happened, or after its commit, unknown to the caller.
type nthFails struct {
	store.Store
	n     atomic.Int64 // changes until the failure
	after bool
}

func (s *nthFails) Change(ctx context.Context, fn func(store.Tx) error) error {
	if s.n.Add(-1) != 0 {
		return s.Store.Change(ctx, fn)
	}
	if s.after {
		if err := s.Store.Change(ctx, fn); err != nil {
			return err
		}
	}
	return store.ErrCommitUnknown
}

// FAULTS row 2: whichever write of the engine fails, and whether or not it arrived, the job ends with every step done in
// order, none skipped, and the counts of the row are right (I7).
func TestEveryFailedWriteIsSurvived(t *testing.T) {
	tried := 0
	for _, after := range []bool{false, true} {
		for n, hit := int64(1), true; hit; n++ {
			tried++
			synctest.Test(t, func(t *testing.T) {
				st, c := openStore(t), &counter{}
				faulty := &nthFails{Store: st, after: after}
				faulty.n.Store(n)
				r := newRunner(t, faulty, Config{Exclusive: true}, c)
				start(t, r)
				j := wait10(t, r, enqueue(t, st, r, jobs.Job{Kind: "count", Total: 4}).ID)
				hit = faulty.n.Load() <= 0
				if j.State != jobs.Done || j.Done != 4 || j.Error != "" {
					t.Errorf("write %d failed (after its commit: %v): %+v", n, after, j)
				}
				checkSteps(t, c.of(j.ID), 4, 1)
			})
		}
	}
	t.Logf("%d places of failure tried", tried)
	if tried < 12 {
		t.Errorf("only %d places: does the wrapper still see the engine's writes?", tried)
	}
}

// FAULTS row 1, exactly: the process ends at every named place in turn, and is started again.
func TestEveryFailpointLeavesAResumableJob(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "runner.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "failpoint", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building with failpoints: %v\n%s", err, out)
	}
	for _, name := range []string{"after-claim", "before-save", "after-save", "before-settle", "inside-settle", "after-settle"} {
		t.Run(name, func(t *testing.T) {
			p := place{store.SQLite, filepath.Join(t.TempDir(), "keyturn.db")}
			first, out := runOnce(t, bin, p, "KEYTURN_FAIL=runner/"+name+":3")
			if first != 137 {
				t.Fatalf("ended with %d, want 137\n%s", first, out)
			}
			second, out2 := runOnce(t, bin, p, "KEYTURN_FAIL=")
			if second != 0 {
				t.Fatalf("the second process ended with %d\n%s", second, out2)
			}
			checkSteps(t, parseSteps(t, out+out2), killSteps, 1)
		})
	}
}

// runOnce runs the child to its end, whichever it is, and answers its exit status and what it printed.
func runOnce(t *testing.T, bin string, p place, env string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin)
	cmd.Env = append(os.Environ(), env, fmt.Sprintf("%s=%s %s", childEnv, p.dialect, p.at))
	out, err := cmd.Output()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		t.Fatalf("%s: %v", env, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func parseSteps(t *testing.T, out string) (steps []step) {
	t.Helper()
	for line := range strings.Lines(out) {
		var s step
		if _, err := fmt.Sscan(line, &s.n, &s.epoch); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		steps = append(steps, s)
	}
	return steps
}

// A server without work hardly writes: ten minutes of it, on a clock that jumps from timer to timer.
func TestIdleServerHardlyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		r := newRunner(t, st, Config{Exclusive: true}, &counter{})
		start(t, r)
		<-time.After(time.Minute)
		changes := func() (n int) {
			if err := st.DB().QueryRow(`SELECT total_changes()`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := changes()
		<-time.After(10 * time.Minute)
		n := changes() - before
		t.Logf("%d rows written in 10 minutes", n)
		if n > 150 { // River's leader election writes one every 5 s
			t.Errorf("an idle runner wrote %d rows in 10 minutes", n)
		}
	})
}
