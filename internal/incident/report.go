package incident

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/gate"
)

// Report is the evidence of an incident: everything that Show says, every event of the audit log that belongs to it with its
// place there, and a signed checkpoint that covers all of these places.
func (s *Service) Report(ctx context.Context, c *access.Caller, id string) (out api.IncidentReport, err error) {
	if err := identified(id); err != nil {
		return out, err
	}
	in := gate.Intent{Action: access.IncidentRead, Type: audit.Reporting, Verb: "incident_reported", Resource: resource(id)}
	err = s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		ev.Details.Incident = id
		d, err := s.detail(ctx, id)
		if err != nil {
			return err
		}
		out = api.IncidentReport{
			Generated: s.now(), GeneratedBy: actor(c), Version: s.cfg.Version, StoreID: s.cfg.Store.ID(), Report: d.shown(c), PublicKey: s.cfg.PublicKey,
		}
		if out.Actions, err = s.actions(ctx, &d); err != nil {
			return err
		}
		if !mayReadLog(c) {
			for n := range out.Actions {
				out.Actions[n].User, out.Actions[n].Event = "", ""
			}
			out.Report.Withheld = append(out.Report.Withheld, withheld("who did what, and the events' lines", access.AuditRead))
		}
		ev.Details.Items = uint64(len(out.Actions))
		p, err := s.cfg.Gate.Checkpoint(ctx) // after the events were read, so that it covers them
		if err != nil {
			return err
		}
		out.Checkpoint, out.Shards = p.Note, make([]api.AuditShard, len(p.Shards))
		for n, h := range p.Shards {
			out.Shards[n] = api.AuditShard{Shard: h.Shard, Size: h.Size, Root: base64.StdEncoding.EncodeToString(h.Root[:])}
		}
		return nil
	})
	if err != nil {
		return api.IncidentReport{}, err
	}
	return out, nil
}

// loggedLine is what is looked at in an event to see whether it belongs to an incident.
type loggedLine struct {
	Time     time.Time `json:"timestamp"`
	Type     string    `json:"event_type"`
	Action   string    `json:"action"`
	Success  bool      `json:"success"`
	User     string    `json:"user_id"`
	Resource string    `json:"resource"`
	Version  uint32    `json:"key_version"`
	Details  struct {
		Incident string `json:"incident"`
		Job      string `json:"job"`
	} `json:"details"`
	Shard int    `json:"shard"`
	Index uint64 `json:"index"`
}

// slack is how far the clocks of two nodes may stand apart.
const slack = 5 * time.Minute

// actions finds an incident's events: those about the incident itself, all that its job wrote while it ran, and what the
// re-encryptions wrote that it queued. Context is whatever callers bind to their ciphertexts and is looked at by nobody: an
// event belongs here only by its own field.
func (s *Service) actions(ctx context.Context, d *detail) ([]api.IncidentAction, error) {
	found := actions{incident: []byte(d.i.ID), seen: map[string]bool{}, list: []api.IncidentAction{}}
	queries := []gate.Filter{
		{Resource: resource(d.i.ID).String()},
		{Since: d.i.Opened.Add(-slack), Until: s.lastStep(d).Add(slack)},
	}
	for _, set := range d.out.Datasets {
		if set.Job != "" {
			queries = append(queries, gate.Filter{Resource: "dataset/" + set.Dataset, Since: d.i.Opened.Add(-slack)})
			found.jobs = append(found.jobs, set.Job)
		}
	}
	for _, f := range queries {
		if err := s.cfg.Gate.Query(ctx, f, found.look); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found.list, func(a, b api.IncidentAction) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Index, b.Index))
	})
	return found.list, nil
}

// lastStep is the time of the job's last entry.
func (s *Service) lastStep(d *detail) time.Time {
	last := d.i.Opened
	for _, e := range d.out.Timeline {
		if e.By == systemName {
			last = e.At
		}
	}
	if d.out.JobState != "done" {
		return s.now()
	}
	return last
}

// actions gathers events, each once.
type actions struct {
	incident []byte
	jobs     []string
	seen     map[string]bool
	list     []api.IncidentAction
}

func (a *actions) look(line []byte) error {
	if !bytes.Contains(line, a.incident) && !slices.ContainsFunc(a.jobs, func(id string) bool { return bytes.Contains(line, []byte(id)) }) {
		return nil
	}
	var e loggedLine
	if json.Unmarshal(line, &e) != nil {
		return nil // not well formed: audit verify finds it
	}
	at := gate.Cursor(e.Shard, e.Index)
	belongs := e.Details.Incident == string(a.incident) || e.Resource == "incident/"+string(a.incident) || slices.Contains(a.jobs, e.Details.Job)
	if !belongs || a.seen[at] || e.Type == string(audit.ConfigRead) { // who looked at it did nothing
		return nil
	}
	a.seen[at] = true
	a.list = append(a.list, api.IncidentAction{
		Time: e.Time, EventType: e.Type, Action: e.Action, Resource: e.Resource, KeyVersion: e.Version, Success: e.Success, User: e.User,
		Shard: e.Shard, Index: e.Index, Event: string(line),
	})
	return nil
}
