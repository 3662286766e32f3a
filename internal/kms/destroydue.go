package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// DestroyDue has executed what is due of the scheduled destructions, for those who run no server: a server does it by itself,
// every few minutes. It answers at once; the job does it, by the rules of RunDue. Only destructions of keys that the caller may
// destroy are named, and nothing is begun when there is none.
func (s *Service) DestroyDue(ctx context.Context, c *access.Caller, in api.DestroyDueRequest) (api.DestroyDue, error) {
	out := api.DestroyDue{State: string(jobs.Done), DryRun: in.DryRun, Due: []api.DueDestruction{}}
	intent := gate.Intent{Action: access.KeyDestroy, Type: audit.KeyState, Verb: "destroy_due_requested", Resource: keyResource("")}
	if allowed(c, intent.Action, intent.Resource) {
		var err error
		if out.Due, err = s.waited(ctx, c); err != nil {
			return out, err
		}
	}
	err := s.gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items = uint64(len(out.Due))
		if in.DryRun || len(out.Due) == 0 {
			return nil
		}
		j, err := s.cfg.Enqueue(ctx, tx, jobs.Job{Kind: JobDestroyDue, Subject: "key", UniqueKey: JobDestroyDue, Actor: actor(c)})
		out.Job, out.State, ev.Details.Job = j.ID, string(j.State), j.ID
		return err
	})
	if err != nil {
		return api.DestroyDue{}, err
	}
	return out, nil
}

// waited lists the versions whose waiting time is over by this machine's clock.
func (s *Service) waited(ctx context.Context, c *access.Caller) (out []api.DueDestruction, err error) {
	now := s.clock()
	err = s.st.View(ctx, func(tx store.Tx) error {
		out = []api.DueDestruction{}
		_, states, err := tx.CountKeys(ctx)
		if err != nil || states[keys.DestroyScheduled] == 0 {
			return err
		}
		return eachKey(ctx, tx, func(k keys.Key) error {
			for _, v := range k.Versions {
				if v.State == keys.DestroyScheduled && !now.Before(v.DestroyAt) && allowed(c, access.KeyDestroy, keyResource(k.Name)) {
					out = append(out, api.DueDestruction{Key: k.Name, Version: v.Number, DestroyAt: v.DestroyAt})
				}
			}
			return nil
		})
	})
	return out, err
}
