package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

func jobCommand(a *app) *cobra.Command {
	return noun("job", "Look at durable work and control it",
		`Jobs are durable: whatever is killed in the middle goes on where it was. A server runs them; without one, the command that
started a job runs it, and the same command takes it up again.`,
		`  keyturn job list
  keyturn job watch 01JZ…
  keyturn job retry 01JZ…`,
		jobList(a), jobShow(a), jobWatch(a),
		jobControl(a, "pause", "Have a job stop after the batch it is at", false, (*keyturn.Client).PauseJob),
		jobControl(a, "resume", "Let a paused job go on, or one that waits for its next attempt try now", true, (*keyturn.Client).ResumeJob),
		jobControl(a, "cancel", "End a job; what is done stays done", false, (*keyturn.Client).CancelJob),
		jobControl(a, "retry", "Take up a failed job, or what it left behind, again; have one that waits try now", true, (*keyturn.Client).RetryJob),
	)
}

func jobList(a *app) *cobra.Command {
	var f keyturn.JobFilter
	return withFlags(&cobra.Command{
		Use: "list", Short: "List jobs, newest first",
		Long:    "Lists what is planned, and jobs, newest first, a page at a time: --after takes the \"next\" of the page before.",
		Example: "  keyturn job list\n  keyturn job list --state failed",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Jobs(cmd.Context(), f)
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) {
					plannedTable(t, list.Planned)
					if len(list.Jobs) == 0 {
						t.line("No such jobs.")
						return
					}
					t.row("JOB", "KIND", "SUBJECT", "STATE", "DONE", "OF", "CREATED", "BY", "NEXT ATTEMPT", "WHY")
					for _, j := range list.Jobs {
						t.row(j.ID, j.Kind, j.Subject, j.State, j.Done, j.Total, j.Created, j.Actor, j.NextAttempt, j.Error)
					}
					if list.Next != "" {
						t.line("More: keyturn job list --after %s", list.Next)
					}
				})
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&f.State, "state", "", "only jobs in this `state`: queued, running, paused, cancelled, failed or done")
		cmd.Flags().StringVar(&f.After, "after", "", "begin after this `cursor`")
	})
}

// plannedTable prints the standing orders in front of a list of jobs.
func plannedTable(t *table, planned []api.PlannedJob) {
	if len(planned) == 0 {
		return
	}
	t.row("PLANNED", "WHEN", "ZONE", "NEXT", "LAST", "LAST JOB")
	for _, p := range planned {
		zone := p.Zone
		if zone == "" {
			zone = "UTC"
		}
		t.row(p.Name, p.Cron, zone, p.Next, p.Last, p.LastJob)
	}
	t.line("")
}

// shownJob is what `job show --json` prints: the job, and the first page of its dead-letter list.
type shownJob struct {
	api.Job
	Failures []api.JobFailure `json:"failures"`
}

func jobShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a job, and the rows that it could not do",
		Long:    "Shows a job with its counts and its dead-letter list: the rows that could not be done, by primary key, and why.",
		Example: "  keyturn job show 01JZ…",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				j, err := s.Job(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				failures, err := s.JobFailures(cmd.Context(), args[0], 0, 0)
				if err != nil {
					return err
				}
				return a.showJob(j, &failures)
			})
		},
	}
}

// showJob prints a job, with its failures when they were asked for.
func (a *app) showJob(j api.Job, failures *api.JobFailureList) error {
	doc := any(j)
	if failures != nil {
		doc = shownJob{j, append([]api.JobFailure{}, failures.Failures...)}
	}
	return a.show(doc, func(t *table) {
		t.row("job", j.ID)
		t.row("kind", j.Kind)
		t.row("subject", j.Subject)
		t.row("state", j.State)
		t.row("done", fmt.Sprintf("%s of %s", grouped(j.Done), grouped(j.Total)))
		t.row("by", j.Actor)
		t.row("created", j.Created)
		t.row("started", j.Started)
		t.row("finished", j.Finished)
		t.row("attempts", j.Attempts)
		if j.NextAttempt != nil {
			t.row("next attempt", j.NextAttempt)
		}
		if j.Run != nil {
			var parts []string
			for _, c := range runCounts(j) {
				parts = append(parts, grouped(c.n)+" "+c.name)
			}
			t.row("counts", strings.Join(parts, ", "))
		}
		if j.Error != "" {
			t.row(cmp.Or(map[string]string{"queued": "waits", "done": "left"}[j.State], "error"), j.Error)
		}
		if failures != nil && len(failures.Failures) > 0 {
			failureTable(t, failures)
		}
	})
}

func failureTable(t *table, list *api.JobFailureList) {
	t.line("")
	t.row("ROW", "COLUMN", "WHY", "AT")
	for _, f := range list.Failures {
		t.row(f.Item, f.Column, f.Reason, f.At)
	}
	if n := list.Total - int64(len(list.Failures)); n > 0 {
		t.line("and %s more", grouped(n))
	}
}

func jobWatch(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Show how a job gets on until it ends",
		Long: "Shows how a job gets on until it is done, failed, cancelled or paused; then its counts. Ctrl-C ends the watching, not the job.\n" +
			"Without a server this command runs the job, and then what it began: the re-encryptions of an emergency, or what follows\n" +
			"a rotation.",
		Example: "  keyturn job watch 01JZ…",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				return a.follow(cmd.Context(), s, args[0], "job watch "+args[0])
			})
		},
	}
}

// jobControl is a verb that steers a job. Those after which it runs wait for its end, as the command that began it did.
func jobControl(a *app, verb, short string, runs bool, call func(*keyturn.Client, context.Context, string) (api.Job, error)) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short,
		Long:    short + ".\nJobs are listed by 'keyturn job list'.",
		Example: "  keyturn job " + verb + " 01JZ…",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.with(ctx, func(s *store) error {
				if detach && s.embedded {
					return errNobodyRuns
				}
				j, err := call(s.Client, ctx, args[0])
				if err != nil {
					return err
				}
				if runs && !detach {
					return a.follow(ctx, s, j.ID, "job "+verb+" "+j.ID)
				}
				return a.showJob(j, nil)
			})
		},
	}
	if runs {
		cmd.Long = short + ", and wait for its end.\nJobs are listed by 'keyturn job list'."
		cmd.Flags().BoolVar(&detach, "detach", false, "return at once and leave the job to the server")
	}
	return cmd
}
