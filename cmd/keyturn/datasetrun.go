package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// work is a verb that runs a job over a dataset.
type work struct {
	verb, short, long, example string
	destroys, samples, imports bool
	call                       func(*keyturn.Client, context.Context, string, api.DatasetRunRequest) (api.DatasetRun, error)
}

// works is the table of these verbs.
var works = map[string]work{
	"encrypt": {
		verb: "encrypt", short: "Seal every plaintext value of a dataset",
		long: "Seals every value that is still plaintext, row by row, by compare-and-swap: what the application writes meanwhile\nstays. Values that are sealed already, and nulls, are left alone." + fromHelp,
		call: (*keyturn.Client).EncryptDataset, imports: true,
		example: `  keyturn dataset encrypt patients
  keyturn dataset encrypt patients --dry-run
  keyturn dataset encrypt patients --from fernet --from-key-file new.key --from-key-file old.key --dry-run
  keyturn dataset encrypt letters --from pgcrypto --from-key-file password.txt
  keyturn dataset encrypt cards --from aes-256-cbc --from-key-file aes.key --unauthenticated --expect '[0-9]{16}'`,
	},
	"reencrypt": {
		verb: "reencrypt", short: "Bring every value under its key's active version",
		long: "Moves every value that stands under an older version to the active one, while the application goes on writing. It ends\nwhen a sweep over the whole table finds no old version. Kill it at any moment and run it again: it goes on where it was.",
		call: (*keyturn.Client).ReencryptDataset,
		example: `  keyturn dataset reencrypt patients
  keyturn dataset reencrypt patients --unthrottled --workers 4
  keyturn dataset reencrypt patients --detach`,
	},
	"verify": {
		verb: "verify", short: "Open a dataset's values and count those that don't open",
		long: `Opens every value, or every Nth, and counts those that open, those that don't, and those that there was nothing to open of:
nulls, and what isn't keyturn's (plaintext, or what another system encrypted). Nothing is written.

Exit status 6 when a value doesn't open; else 5 when any isn't keyturn's: nothing is broken, but the column isn't encrypted,
or not yet.`,
		call: (*keyturn.Client).VerifyDataset, samples: true,
		example: `  keyturn dataset verify patients
  keyturn dataset verify patients --sample 100`,
	},
	"decrypt": {
		verb: "decrypt", short: "Put every value of a dataset back into clear",
		long: "Opens every value and writes the plaintext back: afterwards the database protects nothing. Asks first.",
		call: (*keyturn.Client).DecryptDataset, destroys: true,
		example: `  keyturn dataset decrypt patients --dry-run
  keyturn dataset decrypt patients --yes`,
	},
}

func datasetRun(a *app, w work) *cobra.Command {
	var in api.DatasetRunRequest
	var detach, yes bool
	var from fromFlags
	cmd := &cobra.Command{
		Use: w.verb + " NAME", Short: w.short, Example: w.example,
		Long: w.long + "\n\nWaits and shows the progress. Ctrl-C leaves a job that can go on. With --detach a server takes it over at once.",
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name := cmd.Context(), args[0]
			if w.destroys && !in.DryRun {
				if err := a.confirm(cmd.Context(), yes, "Writing the values of dataset %s back in clear", printable(name)); err != nil {
					return err
				}
			}
			what := "dataset " + w.verb + " " + name
			source, release, err := from.request(ctx, a, cmd.Flags())
			defer release()
			if err != nil {
				return err
			}
			if in.From = source; source != nil {
				what += " --from " + source.Format + " … (the same command)"
			}
			return a.with(ctx, func(s *store) error {
				if detach && s.embedded {
					return errNobodyRuns
				}
				run, err := w.call(s.Client, ctx, name, in)
				if err != nil {
					return err
				}
				a.noteKept(&run)
				if detach && run.State == "paused" { // the server leaves it alone: that is how waiting for it would end, too
					j := api.Job{ID: run.Job, Kind: "dataset-" + w.verb, State: run.State, Run: &run}
					if err := a.showRun(j); err != nil {
						return err
					}
					return outcomeOf(j)
				}
				if detach {
					return a.show(run, func(t *table) {
						t.line("Job %s was handed to the server. Follow it: keyturn job watch %s", run.Job, run.Job)
					})
				}
				return a.follow(ctx, s, run.Job, what)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&in.Workers, "workers", 0, "how many `goroutines` write at once (default 2)")
	f.IntVar(&in.BatchSize, "batch-size", 0, "how many `rows` are read at once (default 200, unthrottled 2000)")
	f.IntVar(&in.Rate, "rate", 0, "at most so many `rows` a second (default 15000)")
	f.BoolVar(&in.Unthrottled, "unthrottled", false, "take all that the database gives, whatever the application feels of it")
	f.BoolVar(&in.DryRun, "dry-run", false, "count what would be done and write nothing")
	f.BoolVar(&detach, "detach", false, "return at once and leave the job to the server")
	if w.samples {
		f.IntVar(&in.Sample, "sample", 0, "open every `N`th value only (default: all)")
	}
	if w.imports {
		from.add(f)
		f.BoolVar(&in.Plaintext, "plain", false, "of a dataset that was added with --foreign: what isn't keyturn's is plaintext by now, seal it as it is")
	}
	if w.destroys {
		f.BoolVar(&yes, "yes", false, "don't ask")
	}
	return cmd
}

// noteKept says that the job that was under way already doesn't heed the flags. What the command prints is as without that.
func (a *app) noteKept(run *api.DatasetRun) {
	k := run.Keeps
	if run.Keeps = nil; k == nil {
		return
	}
	parts := []string{"unthrottled", grouped(int64(k.Workers)) + " workers", "batches of " + grouped(int64(k.BatchSize)) + " rows"}
	if k.Rate > 0 {
		parts[0] = grouped(int64(k.Rate)) + " rows a second"
	}
	if k.Sample > 1 {
		parts = append(parts, fmt.Sprintf("every %dth value", k.Sample))
	}
	how := "To change them, cancel it and run the command again: keyturn job cancel " + run.Job
	if k.Urgent {
		how = "It answers an incident, so leave it be"
	}
	a.note("Job %s was under way already and goes on with its own settings: %s. %s", run.Job, strings.Join(parts, ", "), how)
}

// errNobodyRuns refuses --detach where this process alone could do the work.
var errNobodyRuns = fault.New(api.CodeWrongState, "detaching from the job: no server runs on this directory, so nobody would carry it on").
	WithField("detach").WithNext("leave --detach away, or start a server: keyturn serve")

// ends are the states in which nobody works on a job any more.
var ends = []string{"done", "failed", "cancelled", "paused"}

// follow watches a job to its end, on an embedded store with what it began, and prints the counts. what names the command, for
// going on after an interruption too.
func (a *app) follow(ctx context.Context, s *store, id, what string) error {
	last, err := a.watch(ctx, s, id, what, "")
	if err != nil {
		return err
	}
	var failed error
	if s.embedded {
		if failed, err = a.afterwards(ctx, s, last); err != nil {
			return err
		}
	}
	if err := a.showRun(last); err != nil {
		return err
	}
	return cmp.Or(outcomeOf(last), failed)
}

// watch shows how a job gets on until nobody works on it any more. unit is what it counts.
func (a *app) watch(ctx context.Context, s *store, id, what, unit string) (last api.Job, err error) {
	bar := newProgress(a, what)
	bar.unit = unit
	var p patience
	for job, err := range s.WatchJob(ctx, id) {
		if err != nil {
			bar.end(last)
			return last, a.interrupted(ctx, s, err, id, what)
		}
		last = job
		bar.update(job)
		if s.embedded {
			if err := p.over(job); err != nil {
				bar.end(last)
				return last, err
			}
		}
	}
	bar.end(last)
	if ctx.Err() != nil {
		return last, a.interrupted(ctx, s, ctx.Err(), id, what)
	}
	if !slices.Contains(ends, last.State) {
		return last, fault.Newf(api.CodeUnavailable, "waiting for job %s: the server stopped telling of it before it ended", id).
			WithNext("keyturn job watch " + id)
	}
	return last, nil
}

// interrupted says how to go on with a job that nobody waits for any more.
func (a *app) interrupted(ctx context.Context, s *store, err error, id, what string) error {
	if ctx.Err() == nil {
		return err
	}
	if strings.HasPrefix(what, "job ") { // what steers a job is done: a retry that was taken up can't be given again
		what = "job watch " + id
	}
	next := "the job keeps its place; go on with: keyturn " + what
	if !s.embedded {
		next = "the server goes on with the job; follow it: keyturn job watch " + id + ", stop it: keyturn job pause " + id
	}
	return fault.New(api.CodeCancelled, "interrupted").WithNext(next)
}

// showRun prints a dataset job's counts, and any other job as it is.
func (a *app) showRun(j api.Job) error {
	if j.Run == nil {
		return a.showJob(j, nil)
	}
	r := *j.Run
	return a.show(r, func(t *table) {
		t.row("job", r.Job)
		t.row("state", r.State)
		t.row("rows", r.Rows)
		for _, c := range runCounts(j) {
			t.row(c.name, c.n)
		}
		candidatesTable(t, r)
		t.row("seconds", fmt.Sprintf("%.1f (%s rows/s)", r.Seconds, grouped(int64(r.RowsPerSecond))))
	})
}

// outcomeOf is the status of a command that waited for a job. A verification vouches for the columns: what doesn't open is an
// integrity failure, and what isn't ours at all is a state in which it can't vouch for them.
func outcomeOf(j api.Job) error {
	failed, foreign := int64(0), int64(0)
	verified := j.Kind == verification
	if j.Run != nil {
		failed = j.Run.Failed
		if verified {
			foreign = j.Run.Plaintext
		}
	}
	switch {
	case j.State == "paused":
		return fault.Newf(api.CodeWrongState, "waiting for job %s: it is paused", j.ID).WithNext("keyturn job resume " + j.ID)
	case j.State == "cancelled":
		return fault.Newf(api.CodeCancelled, "waiting for job %s: it was cancelled", j.ID).WithNext("what is done stays done; run the command again to go on")
	case failed > 0 && verified:
		return fault.Newf(api.CodeIntegrity, "verifying: %d values don't open", failed).WithNext("keyturn job show " + j.ID + " lists them")
	case j.State == "failed":
		return fault.Newf(api.CodeInternal, "running job %s: %s", j.ID, j.Error).WithNext("mend what it names, then: " + retryOf(j))
	case failed > 0:
		return fault.Newf(api.CodeInternal, "running job %s: %d rows could not be done and were left as they are", j.ID, failed).
			WithNext("keyturn job show " + j.ID + " lists them and says why; afterwards: " + retryOf(j))
	case foreign > 0:
		name := printable(strings.TrimPrefix(j.Subject, "dataset/"))
		return fault.Newf(api.CodeWrongState, "verifying: %d values aren't keyturn's: they stand in plaintext, or as another system encrypted them", foreign).
			WithNext("keyturn dataset census " + name + " counts them by column; seal them: keyturn dataset encrypt " + name + ", with --from for another system's")
	}
	return nil
}

// retryOf takes up what a job left. An import's candidate keys are gone with it, and a dry run left nothing.
func retryOf(j api.Job) string {
	if j.Run != nil && j.Run.DryRun {
		return "the same command again"
	}
	if j.Run != nil && j.Run.From != "" {
		return "the same command again, with the keys that were missing"
	}
	return "keyturn job retry " + j.ID
}

// verification is the kind of the jobs of `dataset verify`.
const verification = "dataset-verify"

// named is a count as people are told of it.
type named struct {
	name string
	n    int64
}

// runCounts is what people are told of a job on a dataset. A verification changes and skips nothing: it is about values, and
// each of them is in one of its counts.
func runCounts(j api.Job) []named {
	r := j.Run
	if j.Kind == verification {
		return []named{{"opened", r.Opened}, {"plaintext", r.Plaintext}, {"null", r.Null}, {"not sampled", r.NotSampled}, {"failed", r.Failed}}
	}
	changed := "changed"
	if r.DryRun {
		changed = "would change"
	}
	return []named{{changed, r.Changed}, {"skipped", r.Skipped}, {"conflicts", r.Conflicts}, {"failed", r.Failed}}
}
