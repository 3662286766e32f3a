package server

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/access"
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
		Clock: s.opts.Clock, Logger: s.log, GaveUp: s.rotation.GaveUp,
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
