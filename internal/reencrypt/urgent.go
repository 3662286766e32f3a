package reencrypt

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// Urgent queues the re-encryption of a dataset ahead of everything else, inside a transaction of the caller, who has
// decided that it may be and records it. An unfinished re-encryption is raised instead, and resumed if it was paused: it
// works towards the version that is active when it ends, whatever was when it began, and no longer at the pace that it was
// given. Any other job that has the dataset keeps its place and steps aside until this one has ended, see turn: over is that
// job, and resumed says that a person had paused j, for the record. Errors: busy, which passes, when the job that would be raised is just ending.
func (s *Service) Urgent(ctx context.Context, tx store.Tx, d *datasets.Dataset, actor string) (j, over jobs.Job, resumed bool, err error) {
	a := args{Dataset: d.Name, ID: d.ID, Rate: DefaultRate, Compromised: true, Patient: true}
	if err := s.sign(ctx, KindReencrypt, d, &a); err != nil {
		return j, over, false, err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return j, over, false, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	list, err := unfinished(ctx, tx, d.Name)
	if err != nil {
		return j, over, false, err
	}
	for _, one := range list {
		if !moves(one, d) {
			over = one
		} else if j.ID == "" || before(one, j) {
			j = one
		}
	}
	for _, place := range []string{subject(d.Name), subject(d.Name) + firstPlace} {
		if j.ID != "" {
			break
		}
		other, err := s.cfg.Enqueue(ctx, tx, jobs.Job{
			Kind: string(KindReencrypt), Subject: subject(d.Name), UniqueKey: place, Args: text, Actor: actor, Priority: jobs.PriorityUrgent,
		})
		if err != nil {
			return j, over, false, err
		}
		if moves(other, d) {
			j = other
		} else {
			over = other
		}
	}
	switch {
	case j.ID == "":
		return j, over, false, fault.Newf(api.CodeBusy, "job %s (%s) on dataset %s is just ending", over.ID, over.Kind, d.Name).WithField("dataset").WithNext("try again")
	case j.State == jobs.Queued && j.Epoch == 0 && urgent(j): // new, or waits for its first chunk
		return j, over, false, nil
	}
	slow := !urgent(j) && j.State == jobs.Running
	resumed = j.State == jobs.Paused || j.Control == jobs.Pause
	if j, err = s.cfg.Raise(ctx, tx, j.ID); err == nil && slow {
		err = s.cfg.Recall(ctx, tx, j.ID) // its chunk still works at the old pace
	}
	return j, over, resumed, err
}

// firstPlace follows a dataset's subject in the unique key of a re-encryption that goes before the job that has the subject.
const firstPlace = "/first"

// MayMove is the error that Move would answer now because of another job, or nil: for who asks often.
func (s *Service) MayMove(ctx context.Context, tx store.Tx, d *datasets.Dataset) error {
	list, err := unfinished(ctx, tx, d.Name)
	if err != nil || len(list) == 0 || slices.ContainsFunc(list, func(j jobs.Job) bool { return moves(j, d) }) {
		return err
	}
	return hasIt(&list[0], d.Name)
}

// InTheWay is a job that would step aside for the dataset's urgent re-encryption; one without an id when there is none.
func (s *Service) InTheWay(ctx context.Context, tx store.Tx, d *datasets.Dataset) (over jobs.Job, err error) {
	list, err := unfinished(ctx, tx, d.Name)
	for _, j := range list {
		if !moves(j, d) {
			over = j
		}
	}
	return over, err
}

// unfinished lists the jobs on a dataset that haven't ended. That is one at most, and beside it an urgent re-encryption that
// goes before it.
func unfinished(ctx context.Context, tx store.Tx, dataset string) ([]jobs.Job, error) {
	return tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running, jobs.Paused}, Subject: subject(dataset), Limit: jobs.MaxLimit})
}

// hasIt refuses because of a job that has the dataset.
func hasIt(j *jobs.Job, dataset string) error {
	next := "wait for it, or end it: keyturn job cancel " + j.ID
	if urgent(*j) {
		next = "wait for it, it answers an incident: keyturn job watch " + j.ID
	}
	return fault.Newf(api.CodeConflict, "job %s (%s) on dataset %s hasn't ended", j.ID, j.Kind, dataset).WithField("dataset").WithNext(next)
}

// moves says whether an unfinished job does what Urgent wants done.
func moves(j jobs.Job, d *datasets.Dataset) bool {
	var a args
	var p progress
	if json.Unmarshal(j.Args, &a) != nil || len(j.Progress) > 0 && json.Unmarshal(j.Progress, &p) != nil {
		return false
	}
	return j.Kind == string(KindReencrypt) && !a.DryRun && a.ID == d.ID && !p.Ended && j.Control != jobs.Cancel
}

// urgent says whether a job answers an incident: nothing else on a dataset is queued so, or raised.
func urgent(j jobs.Job) bool {
	return j.Kind == string(KindReencrypt) && j.Priority == jobs.PriorityUrgent
}

// before says which of two jobs on one dataset works first. It orders all of them, so that no two ever wait for one another.
func before(a, b jobs.Job) bool {
	if urgent(a) != urgent(b) {
		return urgent(a)
	}
	return a.ID < b.ID
}

// How long jobs on one dataset wait for one another. Who goes first looks more often, so that it finds its turn.
const (
	firstPause = time.Second
	asidePause = 10 * time.Second
)

// turn is nil when a chunk of the job may begin. A re-encryption that answers an incident goes before every other job on its
// dataset, whatever that is and at whatever pace it was told to work: the other is recalled, steps aside and goes on
// afterwards, so nobody loses anything, and nobody can hold up an emergency by work of his own. A job that is paused waits for
// a person, and nobody waits for it.
func (s *Service) turn(ctx context.Context, j jobs.Job) error {
	var list []jobs.Job
	err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		list, err = tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running}, Subject: j.Subject, Limit: jobs.MaxLimit})
		return err
	})
	if err != nil {
		return err
	}
	var wait error
	for _, o := range list {
		switch {
		case o.ID == j.ID || !isKind(o.Kind):
		case before(o, j):
			return &runner.Later{After: asidePause, Why: "steps aside for job " + o.ID + " (" + o.Kind + ") on the same dataset"}
		case o.State == jobs.Running:
			if err := s.cfg.Store.Change(ctx, func(tx store.Tx) error { return s.cfg.Recall(ctx, tx, o.ID) }); err != nil {
				return err
			}
			wait = &runner.Later{After: firstPause, Why: "waiting until job " + o.ID + " (" + o.Kind + ") steps aside"}
		}
	}
	return wait
}

// hurried are the arguments of a re-encryption that was raised: at least as fast as one that Urgent queues, and as patient. Whoever
// asked for it may have wanted it slow; in an emergency that is nobody's to choose.
func (a args) hurried() args {
	if a.Rate > 0 {
		a.Rate = max(a.Rate, DefaultRate)
	}
	if a.Workers > 0 {
		a.Workers = max(a.Workers, defaultWorkers)
	}
	if a.Batch > 0 {
		a.Batch = max(a.Batch, throttledBatch)
	}
	a.Patient = true
	return a
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
