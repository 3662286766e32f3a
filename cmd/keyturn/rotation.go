package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func rotationCommand(a *app) *cobra.Command {
	return noun("rotation", "See which keys are due, have them rotated, and see what was",
		`A server rotates keys by itself when the policies say so. These commands show how the keys stand, do at once what is due,
and show what was done.`,
		`  keyturn rotation status
  keyturn rotation run --dry-run
  keyturn rotation history phi`,
		rotationStatus(a), rotationRun(a), rotationHistory(a),
	)
}

func rotationStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say which keys are overdue and which come next",
		Long:    "Lists the keys with their last and next rotation: overdue ones first, then those that come next, then those\nthat are rotated on demand only, and last those that have no active version and protect nothing.",
		Example: "  keyturn rotation status\n  keyturn rotation status --json | jq -r '.keys[] | select(.overdue) | .name'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				status, err := s.RotationStatus(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(status, func(t *table) {
					dueTable(t, status.Keys)
					t.line("")
					t.row("last check", status.Checked)
					t.row("next check", status.NextCheck)
				})
			})
		},
	}
}

func dueTable(t *table, list []api.RotationKey) {
	if len(list) == 0 {
		t.line("No keys.")
		return
	}
	t.row("KEY", "PURPOSE", "VERSION", "LAST", "NEXT", "STATE")
	for _, k := range list {
		state := "on demand"
		switch {
		case k.Inactive:
			state = "NO ACTIVE VERSION"
		case k.Overdue && k.UsedPercent >= 100:
			state = "USED UP"
		case k.Overdue:
			state = "OVERDUE"
		case k.UsedPercent >= 75:
			state = fmt.Sprintf("%d %% used", k.UsedPercent)
		case k.DueSoon:
			state = "due soon"
		case k.Next != nil:
			state = "in time"
		}
		t.row(k.Name, k.Purpose, versionOrNone(k.Version), k.Last, k.Next, state)
	}
}

func rotationRun(a *app) *cobra.Command {
	var in api.RotationRunRequest
	var detach bool
	cmd := &cobra.Command{
		Use: "run", Short: "Rotate what is due, now",
		Long: `Rotates every key that is due by its policy, the longest overdue first, and does what its policy says afterwards: the
self-check, and the re-encryption of its datasets, which are jobs of their own. With a server it waits for the rotations, and
the server goes on with what follows them; without one it waits for all of it, and takes up what an earlier run left. With
--dry-run it only says what would be rotated.`,
		Example: `  keyturn rotation run --dry-run
  keyturn rotation run --max 10`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error { return a.runRotation(cmd.Context(), s, in, detach) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&in.Max, "max", 0, "rotate at most so many `keys` (default: all that are due)")
	f.BoolVar(&in.DryRun, "dry-run", false, "say what would be rotated and change nothing")
	f.BoolVar(&detach, "detach", false, "return at once and leave the job to the server")
	return cmd
}

func (a *app) runRotation(ctx context.Context, s *store, in api.RotationRunRequest, detach bool) error {
	if detach && s.embedded {
		return errNobodyRuns
	}
	run, err := s.RunRotation(ctx, in)
	if err != nil {
		return err
	}
	if detach || run.Job == "" && (in.DryRun || !s.embedded) {
		return a.showRotationRun(run)
	}
	if run.Job == "" { // what an earlier run left is taken up all the same
		failed, err := a.awaitFollowing(ctx, s, time.Now())
		if err != nil {
			return err
		}
		return cmp.Or(a.showRotationRun(run), failed)
	}
	last, err := a.watch(ctx, s, run.Job, "rotation run", "keys")
	if err != nil {
		return err
	}
	var failed error
	if s.embedded {
		if failed, err = a.afterwards(ctx, s, last); err != nil {
			return err
		}
	}
	run.State = last.State
	if err := a.showRotated(ctx, s, run, last); err != nil {
		return err
	}
	if last.State == "failed" {
		failures, err := s.JobFailures(ctx, run.Job, 0, 0)
		if err == nil && failures.Total > 0 {
			return fault.Newf(api.CodeInternal, "rotating what is due: %s could not be rotated", numberOf(failures.Total, "key")).
				WithNext("keyturn job show " + run.Job + " lists them and says why; afterwards: keyturn job retry " + run.Job)
		}
	}
	return cmp.Or(outcomeOf(last), failed)
}

func (a *app) showRotationRun(run api.RotationRun) error {
	return a.show(run, func(t *table) {
		if run.Due == 0 {
			t.line("Nothing is due.")
			return
		}
		dueTable(t, run.Keys)
		if more := run.Due - len(run.Keys); more > 0 {
			t.line("and %s more", grouped(int64(more)))
		}
		t.line("")
		switch {
		case run.DryRun:
			t.line("%s would be rotated.", numberOf(int64(run.Due), "key"))
		default:
			t.line("Due: %s. Job %s: %s.", numberOf(int64(run.Due), "key"), run.Job, run.State)
		}
	})
}

// rotationDone is a run that was waited for: Keys are those that were due when it began, Rotated what has followed them since.
type rotationDone struct {
	api.RotationRun
	Rotated []rotatedKey `json:"rotated"`
}

type rotatedKey struct {
	Key        string `json:"key"`
	OldVersion uint32 `json:"oldVersion"`
	NewVersion uint32 `json:"newVersion"`
}

// showRotated shows what was done. Who may not see the keys' state, but have them rotated, sees the number.
func (a *app) showRotated(ctx context.Context, s *store, run api.RotationRun, last api.Job) error {
	status, err := s.RotationStatus(ctx)
	if err != nil {
		a.note("What became of each key can't be shown: %s.", fault.MessageOf(err))
	}
	now := map[string]uint32{}
	for _, k := range status.Keys {
		now[k.Name] = k.Version
	}
	done := rotationDone{RotationRun: run, Rotated: []rotatedKey{}}
	for _, k := range run.Keys {
		if now[k.Name] > k.Version {
			done.Rotated = append(done.Rotated, rotatedKey{k.Name, k.Version, now[k.Name]})
		}
	}
	return a.show(done, func(t *table) {
		n := int64(len(done.Rotated))
		if err == nil {
			t.row("KEY", "PURPOSE", "FROM", "TO", "STATE")
			for _, k := range run.Keys {
				if to := now[k.Name]; to > k.Version {
					t.row(k.Name, k.Purpose, k.Version, to, "rotated")
				} else {
					t.row(k.Name, k.Purpose, k.Version, "", "NOT ROTATED")
				}
			}
		}
		more := run.Due - len(run.Keys)
		if more > 0 {
			t.line("and %s more: keyturn rotation history", grouped(int64(more)))
		}
		if more > 0 || err != nil {
			n = min(last.Done, int64(run.Due))
		}
		t.line("")
		t.line("Rotated: %s of %s. Job %s: %s.", grouped(n), numberOf(int64(run.Due), "key"), run.Job, run.State)
	})
}

func rotationHistory(a *app) *cobra.Command {
	var after string
	var limit int
	cmd := &cobra.Command{
		Use: "history [KEY]", Short: "List rotations, newest first",
		Long: `Lists what was rotated, of one key or of all, newest first: old and new version, why, by whom, how long it took, what the
self-check found, and how many rows were moved to the new version since.`,
		Example: `  keyturn rotation history
  keyturn rotation history phi --limit 10`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("KEY")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			key := ""
			if len(given) == 1 {
				key = given[0]
			}
			if err := notNegative("limit", limit); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				h, err := s.RotationHistory(cmd.Context(), key, after, limit)
				if err != nil {
					return err
				}
				return a.show(h, func(t *table) { historyTable(t, h) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&after, "after", "", "begin after this `cursor`")
	f.IntVar(&limit, "limit", 0, "at most so many `rotations` (default 100)")
	return cmd
}

func historyTable(t *table, h api.RotationHistory) {
	if len(h.Rotations) == 0 {
		t.line("No rotations.")
		return
	}
	t.row("AT", "KEY", "FROM", "TO", "WHY", "BY", "TOOK", "SELF-CHECK", "ROWS MOVED")
	for _, r := range h.Rotations {
		t.row(r.At, r.Key, versionOrNone(r.OldVersion), r.NewVersion, r.Reason, r.Actor, fmt.Sprintf("%.3f s", r.Seconds), r.SelfCheck, r.Rows)
	}
	if h.Next != "" {
		t.line("More: keyturn rotation history --after %s", h.Next)
	}
}

func versionOrNone(n uint32) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}
