package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

// emergencyFlags are what `key rotate --emergency` takes beside what every rotation does.
type emergencyFlags struct {
	compromised             []string
	kind, severity, details string
	detach, dryRun          bool
}

func (e *emergencyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&e.compromised, "compromised", nil, "with --emergency: a version known to others, `KEY:VERSION`; may be repeated (default: those active now)")
	f.StringVar(&e.kind, "type", "", "with --emergency: what happened, a `type`: "+incidentTypes+" (default key-compromise)")
	f.StringVar(&e.severity, "severity", "", "with --emergency: how bad it is, a `severity`: "+incidentSeverities+" (default high)")
	f.StringVar(&e.details, "details", "", "with --emergency: more `text`, up to 16 KiB; - reads it from stdin")
	f.BoolVar(&e.detach, "detach", false, "with --emergency: return at once and leave the work to the server")
}

// onlyEmergency refuses these flags on a rotation that is none: silence would let somebody believe that a version was marked.
func onlyEmergency(cmd *cobra.Command) error {
	for _, name := range []string{"compromised", "type", "severity", "details", "detach"} {
		if cmd.Flags().Changed(name) {
			return usage(name, "key rotate: --%s is for an emergency", name).WithNext("say --emergency too")
		}
	}
	return nil
}

// What `key rotate --emergency --json` prints: the incident, at .incident in every one of them, with what is known of it beside
// it as in `incident show`. For one named key that is added to what every rotation of it prints.
type (
	emergencyKey struct {
		api.Key
		api.IncidentDetail
	}
	emergencyKeys struct {
		Keys    []api.Key `json:"keys"`
		Skipped []string  `json:"skipped"`
		api.IncidentDetail
	}
	emergencyKeyBegun struct { // with --detach, when nothing is known yet
		api.Key
		api.Emergency
	}
)

// emergency opens an incident, and waits until its keys are rotated and its rows moved. What fails doesn't keep the rest from
// being waited for; the first failure is the command's.
func (a *app) emergency(cmd *cobra.Command, in api.EmergencyRequest, e *emergencyFlags) (err error) {
	ctx := cmd.Context()
	if in.Reason == "" {
		return missingReason("key rotate --emergency")
	}
	if cmd.Flags().Changed("if-version") {
		return usage("if-version", "key rotate: an emergency doesn't wait for a version").WithNext("leave --if-version away")
	}
	in.Type, in.Severity = e.kind, e.severity
	if in.Compromised, err = keyVersions("compromised", e.compromised); err != nil {
		return err
	}
	if in.Details, err = a.details(ctx, e.details); err != nil {
		return err
	}
	return a.with(ctx, func(s *store) error {
		if e.dryRun {
			p, err := s.PlanEmergency(ctx, in)
			if err != nil {
				return err
			}
			return a.show(p, func(t *table) { emergencyPlan(t, p) })
		}
		if e.detach && s.embedded {
			return errNobodyRuns
		}
		begun, err := s.Emergency(ctx, in)
		if err != nil {
			return err
		}
		i := begun.Incident
		for _, name := range begun.Skipped {
			a.note("%s: skipped, it has no active version; keyturn key show %s", name, name)
		}
		a.note("Incident %s is open: keyturn incident show %s", i.ID, i.ID)
		if e.detach {
			return a.showBegun(ctx, s, in, begun)
		}
		failed, err := a.awaitIncident(ctx, s, i)
		if err != nil {
			return err
		}
		if err := a.showEmergency(ctx, s, in, begun); err != nil {
			return err
		}
		return failed
	})
}

// emergencyPlan is what an emergency would do, for people.
func emergencyPlan(t *table, p api.EmergencyPlan) {
	t.line("Nothing was changed. An emergency would give these keys a new version, and mark versions compromised; keys: %d", len(p.Keys))
	section(t, len(p.Keys), "KEY\tFROM\tTO\tCOMPROMISED\tCOULD USE IT", func(n int) {
		k := p.Keys[n]
		var marks []string
		for _, v := range k.Compromised {
			marks = append(marks, fmt.Sprintf("%d, now %s", v.Version, v.State))
		}
		t.row(k.Key, k.From, k.To, strings.Join(marks, "; "), orWithheld(couldText(k.Could), p.Withheld, api.WithheldCould))
	})
	section(t, len(p.Skipped), "SKIPPED\tWHY", func(n int) { t.row(p.Skipped[n], "it has no active version") })
	section(t, len(p.Datasets), "DATASET\tHOLDS\tWOULD BE MOVED", func(n int) {
		d := p.Datasets[n]
		held := strings.TrimSpace(heldText(d.Held) + " " + d.Unknown)
		if held == "" {
			held = "nothing under them"
		}
		moves := "no: no column of it is under these keys"
		if d.Moves {
			moves = "yes"
			if d.Problem != "" {
				moves = "yes; " + d.Problem
			}
		}
		t.row(d.Dataset, held, moves)
	})
	for _, what := range p.Withheld {
		t.line("withheld: %s", what)
	}
}

// awaitIncident waits for the incident's job, and then for every re-encryption that it queued. failed is the first that went
// wrong; err that nobody could wait.
func (a *app) awaitIncident(ctx context.Context, s *store, i api.Incident) (failed, err error) {
	j, err := a.watch(ctx, s, i.Job, "job watch "+i.Job, "keys")
	if err != nil {
		return nil, err
	}
	failed = outcomeOf(j)
	moved, err := a.awaitMoves(ctx, s, i.ID)
	return cmp.Or(failed, moved), err
}

// showBegun prints what a server was left with.
func (a *app) showBegun(ctx context.Context, s *store, in api.EmergencyRequest, begun api.Emergency) error {
	if a.json && len(in.Keys) == 1 {
		k, err := s.Key(ctx, in.Keys[0])
		if err != nil {
			return err
		}
		return a.show(emergencyKeyBegun{k, begun}, nil)
	}
	return a.show(begun, func(t *table) { t.line("Job %s of the incident was handed to the server.", begun.Incident.Job) })
}

// showEmergency prints what has come of it.
func (a *app) showEmergency(ctx context.Context, s *store, in api.EmergencyRequest, begun api.Emergency) error {
	d, err := s.Incident(ctx, begun.Incident.ID)
	if err != nil {
		return err
	}
	if !a.json {
		return a.show(d, func(t *table) { incidentDetail(t, d) })
	}
	if len(in.Keys) == 1 {
		k, err := s.Key(ctx, in.Keys[0])
		if err != nil {
			return err
		}
		return a.show(emergencyKey{k, d}, nil)
	}
	out := emergencyKeys{Keys: []api.Key{}, Skipped: begun.Skipped, IncidentDetail: d}
	for k, err := range s.AllKeys(ctx) {
		if err != nil {
			return err
		}
		if slices.ContainsFunc(d.KeyProgress, func(p api.IncidentKey) bool { return p.Key == k.Name }) {
			out.Keys = append(out.Keys, k)
		}
	}
	return a.show(out, nil)
}

// whichKeys is the selection of a rotation as its flags say it.
func whichKeys(given []string, all bool, purpose string) (api.EmergencyRequest, error) {
	in := api.EmergencyRequest{Keys: given, All: all, Purpose: purpose}
	if ways := len(given) + map[bool]int{true: 1}[all] + map[bool]int{true: 1}[purpose != ""]; ways != 1 {
		return in, usage("NAME", "key rotate: exactly one of NAME, --all and --purpose says which keys, and %d were given", ways).
			WithNext("see keyturn key rotate --help")
	}
	return in, nil
}
