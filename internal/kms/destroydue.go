package kms

import (
	"context"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// DestroyDue has executed what is due of the scheduled destructions, for those who run no server: a server does it by itself,
// every few minutes. It answers at once; the job does it, by the rules of RunDue. Only destructions of keys that the caller may
// destroy are named, and nothing is begun when there is none. With in.Unwatched the caller answers for the date: what the clock calls
// due needn't wait until keyturn has run for as long.
func (s *Service) DestroyDue(ctx context.Context, c *access.Caller, in api.DestroyDueRequest) (api.DestroyDue, error) {
	out := api.DestroyDue{State: string(jobs.Done), DryRun: in.DryRun, Due: []api.DueDestruction{}}
	intent := gate.Intent{Action: access.KeyDestroy, Type: audit.KeyState, Verb: "destroy_due_requested", Resource: keyResource("")}
	if err := checkDueRequest(in); err != nil {
		return out, s.refuse(ctx, c, intent, func(*audit.Event) {}, err)
	}
	intent.Reason = in.Reason
	var due []dueVersion
	now, err := s.watchClock(ctx)
	if err == nil && in.Unwatched {
		err = now.backwards()
	}
	if err == nil && allowed(c, intent.Action, intent.Resource) {
		due, err = s.waited(ctx, c, now)
	}
	if err != nil {
		return out, s.refuse(ctx, c, intent, func(*audit.Event) {}, err)
	}
	for _, d := range due {
		out.Due = append(out.Due, api.DueDestruction{Key: d.key, Version: d.version, DestroyAt: d.at, WaitSeconds: int64(min(d.left, shortestWait).Seconds())})
	}
	err = s.gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items = uint64(len(out.Due))
		if in.DryRun || len(out.Due) == 0 {
			return nil
		}
		for _, d := range due {
			if !in.Unwatched || d.left == 0 {
				continue
			}
			ev.Details.Count++
			if err := tx.SetMeta(ctx, metaWait(d.id, d.version), strconv.FormatInt(now.state.Watched, 10)); err != nil {
				return err
			}
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

func checkDueRequest(in api.DestroyDueRequest) error {
	if in.Unwatched && in.Reason == "" {
		return fault.New(api.CodeInvalid, "destroying what keyturn didn't watch: a reason is missing").WithField("reason").
			WithNext("say how you know that the date is right: it is recorded")
	}
	return RefuseSecrets("reason", in.Reason)
}

// waited lists the versions of the caller's keys whose waiting time is over by the clocks.
func (s *Service) waited(ctx context.Context, c *access.Caller, now clocks) (out []dueVersion, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		out = nil
		_, states, err := tx.CountKeys(ctx)
		if err != nil || states[keys.DestroyScheduled] == 0 {
			return err
		}
		over, err := s.waitOver(ctx, tx, earlier(s.time.Wall(), now.shared), now.state.Watched)
		for _, d := range over {
			if allowed(c, access.KeyDestroy, keyResource(d.key)) {
				out = append(out, d)
			}
		}
		return err
	})
	return out, err
}
