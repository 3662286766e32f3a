package incident

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/store"
)

// PlanEmergency finds out what Emergency would do with the same request and changes nothing: the keys with their new versions,
// the versions that would be marked, who may use the keys, and which datasets hold what. It takes the same rights, checks the
// same things, and is recorded; who may use a key is for who may see principals. It counts every dataset.
func (s *Service) PlanEmergency(ctx context.Context, c *access.Caller, in api.EmergencyRequest) (out api.EmergencyPlan, err error) {
	const verb = "emergency_planned"
	i, p, checked, err := s.prepare(ctx, c, in, verb)
	if err != nil {
		return out, err
	}
	intent := gate.Intent{Action: access.IncidentWrite, Type: audit.ConfigRead, Verb: verb, Resource: resource(""), Reason: i.Reason}
	err = s.cfg.Gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		if checked != nil {
			return checked
		}
		describe(ev, &i)
		ev.Details.Incident = "" // there is none
		out = api.EmergencyPlan{DryRun: true, Keys: []api.EmergencyKey{}, Skipped: append([]string{}, p.skipped...), Datasets: []api.EmergencyDataset{}, TakenAt: s.now()}
		if err := s.planKeys(ctx, c, &i, &p, &out); err != nil {
			return err
		}
		return s.planDatasets(ctx, &i, &out)
	})
	if err != nil {
		return api.EmergencyPlan{}, err
	}
	return out, nil
}

func (s *Service) planKeys(ctx context.Context, c *access.Caller, i *incidents.Incident, p *plan, out *api.EmergencyPlan) error {
	var people []access.Principal
	if allowed(c, access.PrincipalRead, access.Resource{Kind: access.KindPrincipal}) {
		var err error
		if people, err = s.people(ctx); err != nil {
			return err
		}
	} else {
		out.Withheld = append(out.Withheld, withheld(api.WithheldCould, access.PrincipalRead))
	}
	marks := map[string][]api.IncidentVersionState{}
	for _, v := range i.Versions {
		marks[v.Key] = append(marks[v.Key], api.IncidentVersionState{Version: v.Number, State: string(p.states[v])})
	}
	for _, t := range i.Targets {
		sets, err := s.setsOf(ctx, t.KeyID)
		if err != nil {
			return err
		}
		out.Keys = append(out.Keys, api.EmergencyKey{
			Key: t.Key, From: t.From, To: t.Last + 1,
			Compromised: append([]api.IncidentVersionState{}, marks[t.Key]...), Could: could(people, t.Key, sets),
		})
	}
	return nil
}

// planDatasets counts every dataset, also those of other keys, since values get copied.
func (s *Service) planDatasets(ctx context.Context, i *incidents.Incident, out *api.EmergencyPlan) error {
	list, err := s.datasets(ctx)
	if err != nil {
		return err
	}
	for n := range list {
		d, err := s.planDataset(ctx, i, &list[n])
		if err != nil {
			return err
		}
		if d.Moves || d.Unknown != "" || len(d.Held) > 0 {
			out.Datasets = append(out.Datasets, d)
		}
	}
	return nil
}

func (s *Service) planDataset(ctx context.Context, i *incidents.Incident, d *datasets.Dataset) (api.EmergencyDataset, error) {
	out := api.EmergencyDataset{Dataset: d.Name, Held: []api.IncidentHeld{}, Moves: concerns(i, d)}
	counting, cancel := context.WithTimeout(ctx, recountTime)
	defer cancel()
	rows, failed := s.cfg.Datasets.Holds(counting, d, versionsOf(i.Versions))
	if ctx.Err() != nil {
		return out, fault.Wrap("", context.Cause(ctx), "counting a dataset")
	}
	if failed != nil {
		out.Unknown = fault.MessageOf(failed)
	}
	out.Held = append(out.Held, heldBy(d, i.Versions, rows, failed)...)
	if !out.Moves {
		return out, nil
	}
	err := s.cfg.Store.View(ctx, func(tx store.Tx) error {
		over, err := s.cfg.Datasets.InTheWay(ctx, tx, d)
		out.Problem = ""
		if over.ID != "" {
			out.Problem = stepsAside(over)
		}
		return err
	})
	return out, err
}
