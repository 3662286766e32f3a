package runner

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// childEnv makes this test binary a process that runs a job and nothing else: dialect, a space, path or URL.
const childEnv = "KEYTURN_RUNNER_TEST_CHILD"

func TestMain(m *testing.M) {
	if where, ok := os.LookupEnv(childEnv); ok {
		dialect, at, _ := strings.Cut(where, " ")
		if err := child(place{store.Dialect(dialect), at}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const killSteps = 60

// child does what an embedded command does: it enqueues its unique job, or finds it, runs it and waits. It prints each
// step when it is done and before it is saved.
func child(p place) error {
	ctx := context.Background()
	st, err := p.open(ctx)
	if err != nil {
		return err
	}
	c := &counter{}
	c.done = func(s step) { fmt.Println(s.n, s.epoch) }
	cfg := p.config("child")
	cfg.Lease = time.Second // one child at a time: nobody takes a job from a slow one
	r, err := New(cfg, st, c)
	if err != nil {
		return err
	}
	var j jobs.Job
	err = st.Change(ctx, func(tx store.Tx) (err error) {
		j, err = r.Enqueue(ctx, tx, jobs.Job{Kind: "count", Total: killSteps, UniqueKey: "the job"})
		return err
	})
	if err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	if j, err = r.Wait(ctx, j.ID, nil); err != nil {
		return err
	}
	if j.State != jobs.Done {
		return fmt.Errorf("the job is %s: %s", j.State, j.Error)
	}
	if err := r.Stop(ctx); err != nil {
		return err
	}
	return st.Close()
}

// P5, FAULTS row 1: a process that runs a job is killed (SIGKILL) again and again, and started again each time as a person
// would. Every step is done, in order, and at most one chunk is repeated for each kill.
func TestKilledProcessesEndTheJobAllTheSame(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		p.mustOpen(t).Close() // makes the tables
		var steps []step
		kills := 0
		for ended := false; !ended; {
			lives := 5 + 3*(kills%4) // steps until the next kill
			ended, steps = runChild(t, p, steps, lives)
			if !ended {
				kills++
			}
		}
		checkSteps(t, steps, killSteps, kills)
		t.Logf("%d kills, %d steps for %d", kills, len(steps), killSteps)
		if kills < 3 {
			t.Errorf("only %d kills", kills)
		}
	})
}

// runChild starts a process and kills it when it has printed so many steps; it answers whether it ended by itself first.
func runChild(t *testing.T, p place, steps []step, lives int) (bool, []step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", childEnv, p.dialect, p.at))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for printed := 0; lines.Scan(); {
		var s step
		if _, err := fmt.Sscan(lines.Text(), &s.n, &s.epoch); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		steps = append(steps, s)
		if printed++; printed == lives {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil || (err != nil && cmd.ProcessState.ExitCode() > 0) {
		t.Fatalf("the process failed: %v\n%s", err, stderr.String())
	}
	return err == nil, steps
}
