package reencrypt

import (
	"context"
	"encoding/json"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Urgent queues the re-encryption of a dataset ahead of everything else, inside a transaction of the caller, who has
// decided that it may be and records it. An unfinished re-encryption is raised instead, and resumed if it was paused: it
// works towards the version that is active when it ends, whatever was when it began. Errors: conflict, which passes, when
// another job works on the dataset or its re-encryption is just ending; wrong_state when such a job is paused.
func (s *Service) Urgent(ctx context.Context, tx store.Tx, d *datasets.Dataset, actor string) (jobs.Job, error) {
	a := args{Dataset: d.Name, ID: d.ID, Rate: DefaultRate, Compromised: true, Patient: true}
	if err := s.sign(ctx, KindReencrypt, d, &a); err != nil {
		return jobs.Job{}, err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return jobs.Job{}, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	j, err := s.cfg.Enqueue(ctx, tx, jobs.Job{
		Kind: string(KindReencrypt), Subject: subject(d.Name), UniqueKey: subject(d.Name), Args: text, Actor: actor, Priority: jobs.PriorityUrgent,
	})
	if err != nil || j.Priority == jobs.PriorityUrgent && j.State == jobs.Queued && j.Epoch == 0 {
		return j, err
	}
	if err := mayRaise(j, d); err != nil {
		return j, err
	}
	return s.cfg.Raise(ctx, tx, j.ID)
}

// MayUrgent is the error that Urgent would answer now because of another job, or nil: for who asks often.
func (s *Service) MayUrgent(ctx context.Context, tx store.Tx, d *datasets.Dataset) error {
	unfinished, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running, jobs.Paused}, Subject: subject(d.Name), Limit: 1})
	if err != nil || len(unfinished) == 0 {
		return err
	}
	return mayRaise(unfinished[0], d)
}

// mayRaise says whether an unfinished job does what Urgent wants done.
func mayRaise(j jobs.Job, d *datasets.Dataset) error {
	var a args
	var p progress
	if err := json.Unmarshal(j.Args, &a); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if len(j.Progress) > 0 {
		if err := json.Unmarshal(j.Progress, &p); err != nil {
			return fault.Wrap(api.CodeInternal, err, "reading a job's progress")
		}
	}
	if j.Kind == string(KindReencrypt) && !a.DryRun && a.ID == d.ID && !p.Ended && j.Control != jobs.Cancel {
		return nil
	}
	code := api.CodeConflict
	if j.State == jobs.Paused {
		code = api.CodeWrongState
	}
	return fault.Newf(code, "job %s (%s) on dataset %s hasn't ended", j.ID, j.Kind, d.Name).WithField("dataset").
		WithNext("wait for it, or end it: keyturn job cancel " + j.ID)
}

// Holds counts the values that a dataset holds under each of the versions now, all columns together, after a durable flush
// of its database. An error means that the database could not be asked: then nobody knows.
func (s *Service) Holds(ctx context.Context, d *datasets.Dataset, versions []VersionOf) (map[VersionOf]int64, error) {
	tallies, err := s.count(ctx, d, only(versions...))
	if err != nil {
		return nil, err
	}
	out := map[VersionOf]int64{}
	for i := range tallies {
		for v, rows := range tallies[i].Versions {
			out[v] += rows
		}
	}
	return out, nil
}
