package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/store"
)

// Note adds a person's words to an open incident.
func (s *Service) Note(ctx context.Context, c *access.Caller, id string, in api.IncidentNoteRequest) (api.Incident, error) {
	if err := identified(id); err != nil {
		return api.Incident{}, err
	}
	if strings.TrimSpace(in.Text) == "" {
		return api.Incident{}, fault.New(api.CodeInvalid, "the note is empty").WithField("text")
	}
	if err := incidents.ValidateText("text", in.Text); err != nil {
		return api.Incident{}, err
	}
	if err := kms.RefuseSecrets("text", in.Text); err != nil {
		return api.Incident{}, err
	}
	return s.amend(ctx, c, id, "noted", "", func(i incidents.Incident) (incidents.Incident, incidents.Entry, error) {
		return i, incidents.Entry{Kind: incidents.Note, Text: in.Text}, i.MayChange("noting in")
	})
}

// Close ends an incident. It is refused while its job hasn't done everything, while a key of it can't be read, while a dataset holds values under a version of
// it that is compromised, and while a dataset can't be counted, since nobody knows then. It counts before its transaction; an
// application that has an old data key cached can still write a value afterwards, which a later census shows.
func (s *Service) Close(ctx context.Context, c *access.Caller, id string, in api.CloseIncidentRequest) (api.Incident, error) {
	if err := identified(id); err != nil {
		return api.Incident{}, err
	}
	if err := incidents.ValidateReason(in.Reason); err != nil {
		return api.Incident{}, err
	}
	if err := kms.RefuseSecrets("reason", in.Reason); err != nil {
		return api.Incident{}, err
	}
	var checked error
	if allowed(c, access.IncidentWrite, resource(id)) {
		checked = s.finished(ctx, id, in.Removed)
	}
	text := "closed: "
	if in.Removed {
		text = "closed although datasets may have been removed with values left in them: "
	}
	return s.amend(ctx, c, id, "closed", in.Reason, func(i incidents.Incident) (incidents.Incident, incidents.Entry, error) {
		if checked != nil {
			return i, incidents.Entry{}, checked
		}
		i, err := i.Close(actor(c), in.Reason, s.now())
		return i, incidents.Entry{Kind: incidents.Action, Text: text + in.Reason}, err
	})
}

// amend changes an incident and adds the entry that says so.
func (s *Service) amend(ctx context.Context, c *access.Caller, id, verb, reason string,
	do func(incidents.Incident) (incidents.Incident, incidents.Entry, error)) (api.Incident, error) {
	var done incidents.Incident
	in := gate.Intent{Action: access.IncidentWrite, Type: audit.Incident, Verb: verb, Resource: resource(id), Reason: reason}
	err := s.cfg.Gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Incident = id
		i, err := tx.Incident(ctx, id)
		if err != nil {
			return err
		}
		i, e, err := do(i)
		if err != nil {
			return err
		}
		i.Entries++
		if err := tx.UpdateIncident(ctx, i); err != nil {
			return err
		}
		e.Incident, e.Number, e.At, e.By = id, i.Entries, s.now(), actor(c)
		done = i
		return tx.AddEntry(ctx, e)
	})
	if err != nil {
		return api.Incident{}, err
	}
	return view(done), nil
}

// finished is nil when nothing keeps an incident open. removed says that datasets which were removed don't.
func (s *Service) finished(ctx context.Context, id string, removed bool) error {
	d, err := s.detail(ctx, id)
	if err != nil {
		return err
	}
	if err := d.i.MayChange("closing"); err != nil {
		return err
	}
	if state := jobs.State(d.out.JobState); state != jobs.Done {
		next := "wait for it: keyturn job watch " + d.i.Job
		if state.Final() || state == jobs.Paused {
			next = "have it go on: keyturn job " + map[bool]string{true: "retry ", false: "resume "}[state.Final()] + d.i.Job
		}
		return fault.Newf(api.CodeWrongState, "closing incident %s: its job is %s", id, orGone(d.out.JobState)).WithField("incident").WithNext(next)
	}
	for _, k := range d.out.KeyProgress {
		if why := undone(&d.i, &k); why != "" {
			return fault.Newf(api.CodeInUse, "closing incident %s: key %s %s", id, k.Key, why).WithField("incident").
				WithNext("look at keyturn incident show and keyturn doctor; restore what somebody else changed from a backup")
		}
	}
	var where, unknown, stuck []string
	for _, set := range d.out.Datasets {
		switch {
		case set.Remaining == nil && !set.Removed:
			unknown = append(unknown, set.Dataset)
		case set.Remaining != nil && *set.Remaining > 0:
			where = append(where, fmt.Sprintf("%d values in dataset %s", *set.Remaining, set.Dataset))
			if jobs.State(set.JobState) == jobs.Failed {
				stuck = append(stuck, "keyturn job show "+set.Job)
			}
		}
	}
	var gone []string
	if !removed {
		if gone, err = s.removed(ctx, &d); err != nil {
			return err
		}
	}
	switch {
	case len(gone) > 0:
		return fault.Newf(api.CodeInUse, "closing incident %s: nobody knows what is left in dataset %s, which was removed", id, some(gone)).WithField("incident").
			WithNext("register it again and move its values; or, if they are gone for good, say so: --datasets-removed --reason WHY")
	case len(stuck) > 0:
		return fault.Newf(api.CodeInUse, "closing incident %s: compromised versions still protect %s", id, some(where)).WithField("incident").
			WithNext("their re-encryption failed: " + some(stuck) + " says at which rows and why; mend or delete those values, then: keyturn dataset reencrypt")
	case len(where) > 0:
		return fault.Newf(api.CodeInUse, "closing incident %s: compromised versions still protect %s", id, some(where)).WithField("incident").
			WithNext("move them: keyturn dataset reencrypt; keyturn incident show says which")
	case len(unknown) > 0:
		return fault.Newf(api.CodeInUse, "closing incident %s: nobody knows what compromised versions still protect in dataset %s", id, some(unknown)).
			WithField("incident").WithNext("make the dataset's database reachable, or remove the dataset if it is gone for good")
	}
	return nil
}

// removed names the datasets that were removed since the incident was opened while values stood in them under a version of it, or
// without anybody having counted; and those that its job found and that are gone without a trace in the log. The log is what is asked:
// a dataset that took over the name is another one.
func (s *Service) removed(ctx context.Context, d *detail) ([]string, error) {
	concerned := map[string]bool{}
	for _, v := range d.i.Versions {
		concerned[v.Key], concerned[fmt.Sprintf("%s:%d", v.Key, v.Number)] = true, true
	}
	for _, t := range d.i.Targets {
		concerned[t.Key] = true
	}
	found, counted := map[string]bool{}, map[string]bool{}
	for _, set := range d.out.Datasets {
		found[set.Dataset] = true
	}
	left := map[string]bool{}
	f := gate.Filter{Type: audit.ConfigWrite, Since: d.i.Opened.Add(-removedSlack)}
	err := s.cfg.Gate.Query(ctx, f, func(line []byte) error {
		var e struct {
			Action  string `json:"action"`
			Success bool   `json:"success"`
			Details struct {
				Dataset string `json:"dataset"`
				State   string `json:"state"`
				Scope   string `json:"scope"`
			} `json:"details"`
		}
		if json.Unmarshal(line, &e) != nil || !e.Success || e.Action != audit.DatasetRemoved {
			return nil
		}
		name := e.Details.Dataset
		if e.Details.State == audit.RemovedCounted {
			counted[name] = true
		}
		for _, word := range strings.Fields(e.Details.Scope) {
			if concerned[word] && (strings.Contains(word, ":") || e.Details.State != audit.RemovedCounted) {
				left[name] = true
			}
		}
		if e.Details.State == "" && found[name] { // by a release that counted nothing
			left[name] = true
		}
		return nil
	})
	for _, set := range d.out.Datasets {
		if set.Removed && !counted[set.Dataset] {
			left[set.Dataset] = true
		}
	}
	return slices.Sorted(maps.Keys(left)), err
}

// removedSlack is by how much the clocks of two nodes may differ.
const removedSlack = time.Hour

// undone is what an incident's job should have done to a key and didn't, whatever the job's row says; or why nobody knows.
func undone(i *incidents.Incident, k *api.IncidentKey) string {
	if k.Problem != "" {
		return "can't be read: " + k.Problem
	}
	if !i.Emergency {
		return ""
	}
	if k.From != 0 && !k.Rotated {
		return "has no new version"
	}
	for _, v := range k.Versions {
		switch keys.State(v.State) {
		case keys.Compromised, keys.DestroyScheduled, keys.Destroyed:
		default:
			return fmt.Sprintf("has version %d %s, which should be marked compromised", v.Version, v.State)
		}
	}
	return ""
}

func orGone(state string) string {
	if state == "" {
		return "gone"
	}
	return state
}

// some names the first few of a list.
func some(list []string) string {
	const most = 5
	if len(list) > most {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", len(list)-most)
	}
	return strings.Join(list, ", ")
}
