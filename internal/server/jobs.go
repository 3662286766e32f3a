package server

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// jobHandlers is the table of the kinds of jobs.
func (s *Server) jobHandlers() []runner.Handler {
	table := []runner.Handler{kms.DueHandler{Service: s.kms}}
	table = append(table, s.datasets.Handlers()...)
	table = append(table, s.rotation.Handlers()...)
	return append(table, s.incidents.Handlers()...)
}

// jobNeeds says what one must be allowed to have a job's work done. The kinds are those of jobHandlers; work of a kind that
// isn't known here is nobody's.
func (s *Server) jobNeeds(ctx context.Context, j jobs.Job) ([]access.Right, error) {
	if j.Kind == kms.JobDestroyDue {
		return []access.Right{{Action: access.KeyDestroy, Resource: access.Resource{Kind: access.KindKey}}}, nil
	}
	if needs := s.rotation.Needs(j); needs != nil {
		return needs, nil
	}
	if needs, err := s.incidents.Needs(ctx, j); err != nil || len(needs) > 0 {
		return needs, err
	}
	return s.datasets.Needs(ctx, j)
}

func (s *Server) runnerConfig() runner.Config {
	return runner.Config{
		Node: s.cfg.Node, Concurrency: s.cfg.Jobs.Concurrency, Exclusive: s.store.Dialect() == store.SQLite,
		Clock: s.time.Now, Logger: s.log, GaveUp: s.rotation.GaveUp,
	}
}

// enqueue puts a job into the queue, in the transaction that makes it necessary, and sees to it that this process works.
func (s *Server) enqueue(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error) {
	j, err := s.runner.Enqueue(ctx, tx, j)
	if err == nil {
		s.startWork()
	}
	return j, err
}

// raise puts a job before all that isn't urgent, in the transaction that finds it so, and sees to it that this process works.
func (s *Server) raise(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := s.runner.Raise(ctx, tx, id)
	if err == nil {
		s.startWork()
	}
	return j, err
}

// recall has a running job begin its next chunk at once.
func (s *Server) recall(ctx context.Context, tx store.Tx, id string) error {
	return s.runner.Recall(ctx, tx, id)
}

// clockEvery is how often a server looks at the clock, and writes down for how long it has run.
const clockEvery = time.Minute

// lastLook is how long the last look at the clock may take, which whoever stops the server waits for.
const lastLook = 3 * time.Second

// watchClock looks at the clock from time to time, and once more when ctx ends.
func (s *Server) watchClock(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	said := false
	for {
		err := s.kms.WatchClock(ctx)
		if err != nil && ctx.Err() == nil && !said {
			s.log.Warn("the clock could not be looked at", "reason", fault.MessageOf(err))
		}
		said = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
			defer cancel()
			_ = s.kms.WatchClock(last) // at worst up to a minute counts as time in which nobody ran
			return
		}
	}
}

// dueEvery is how often a server looks for destructions that are due.
const dueEvery = 10 * time.Minute

// watchDue enqueues the execution of due destructions while any is scheduled, until ctx ends.
func (s *Server) watchDue(ctx context.Context) {
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	for {
		if err := s.enqueueDue(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("due destructions could not be scheduled", "reason", fault.MessageOf(err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) enqueueDue(ctx context.Context) error {
	if s.time.Behind() > clock.Slack {
		return nil // the job would be refused; the alert is recorded, and doctor says it
	}
	scheduled := 0
	err := s.store.View(ctx, func(tx store.Tx) error {
		_, states, err := tx.CountKeys(ctx)
		scheduled = states[keys.DestroyScheduled]
		return err
	})
	if err != nil || scheduled == 0 {
		return err
	}
	return s.store.Change(ctx, func(tx store.Tx) error {
		_, err := s.enqueue(ctx, tx, jobs.Job{Kind: kms.JobDestroyDue, Subject: "key", UniqueKey: kms.JobDestroyDue, Actor: "system"})
		return err
	})
}
