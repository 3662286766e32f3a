// Package incident answers a compromise. It opens an incident, makes new versions of the keys that it concerns, marks those
// that are known to others, moves the data that stands under them ahead of all other work, writes down who could have used
// them and who did, and keeps the incident open until nothing is left.
//
//	svc := incident.New(incident.Config{Gate: g, Store: st, Keys: kms, Datasets: reencrypt, …})
//	started, err := svc.Emergency(ctx, caller, api.EmergencyRequest{Keys: []string{"phi"}, Reason: "laptop stolen"})
//	detail, err := svc.Show(ctx, caller, started.Incident.ID)   // progress, scope, what is left
//	_, err = svc.Close(ctx, caller, started.Incident.ID, api.CloseIncidentRequest{Reason: "rows moved, laptop wiped"})
//
// # How an emergency runs, and what a crash leaves behind
//
// Everything that can be refused is refused before anything is changed: an unknown key, a version that never was, one that
// is destroyed, a right that the caller lacks on one of a thousand keys. Then one transaction writes the incident, its job
// and its event. The job ([handler]) works in steps, each of which is one transaction with its event and its place in the
// job: one for each key (new version and marks together), one for each dataset (its re-encryption queued or raised, and what
// it held), one for each batch of findings. Killed anywhere, it goes on with the step that it was at; a step that was done
// already is seen to be done, from the key itself, and not done twice.
//
// # What is evidence
//
// Rows of incidents carry MACs (package kms), events stand in the audit log. The report ([Service.Report]) names the place of
// every event and carries a signed checkpoint that covers them.
package incident

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/store"
)

// Log is the doorway and the log behind it: package gate.
type Log interface {
	Use(ctx context.Context, c *access.Caller, in gate.Intent, run func(ctx context.Context, ev *audit.Event) error) error
	Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error
	Query(ctx context.Context, f gate.Filter, fn func(line []byte) error) error
	Checkpoint(ctx context.Context) (audit.Checkpoint, error)
}

// Keys is what an incident does to keys: package kms.
type Keys interface {
	RotateInEmergency(ctx context.Context, e kms.Emergency, also func(context.Context, store.Tx) error) (changed bool, err error)
}

// Datasets is what an incident asks of datasets: package reencrypt.
type Datasets interface {
	InTheWay(ctx context.Context, tx store.Tx, d *datasets.Dataset) (over jobs.Job, err error)
	Urgent(ctx context.Context, tx store.Tx, d *datasets.Dataset, actor string) (j, over jobs.Job, resumed bool, err error)
	Holds(ctx context.Context, d *datasets.Dataset, versions []reencrypt.VersionOf) (map[reencrypt.VersionOf]int64, error)
}

// Config is what a Service is made of; everything is required.
type Config struct {
	Gate     Log
	Store    store.Store // attested
	Keys     Keys
	Datasets Datasets
	Clock    func() time.Time
	// Enqueue puts a job into the queue, inside the transaction that makes it necessary.
	Enqueue func(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error)
	// PublicKey is the audit log's, as audit.pub has it, and Version keyturn's: for reports.
	PublicKey, Version string
}

// Service is what `keyturn incident` does, and `keyturn key rotate --emergency`. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

func resource(id string) access.Resource {
	return access.Resource{Kind: access.KindIncident, Name: id}
}

func keyResource(name string) access.Resource {
	return access.Resource{Kind: access.KindKey, Name: name}
}

// allowed looks ahead at the gate's decision; the gate decides again, and records.
func allowed(c *access.Caller, a access.Action, r access.Resource) bool {
	return c != nil && access.Decide(c.Principal, a, r).Allowed
}

func actor(c *access.Caller) string {
	if c == nil || c.Principal == nil {
		return ""
	}
	return c.Principal.Name
}

// systemName is how entries and events call keyturn itself.
const systemName = "system"

// system is who works on jobs: the right to have the work done was decided when it was asked for.
func system() *access.Caller {
	return &access.Caller{
		Principal: &access.Principal{ID: systemName, Name: systemName, Role: access.RoleOwner, Scope: []string{"*"}},
		Method:    "internal",
	}
}

// now is the time as rows hold it.
func (s *Service) now() time.Time { return s.cfg.Clock().UTC().Truncate(time.Microsecond) }

// deny has the doorway refuse and record a right that the caller lacks.
func (s *Service) deny(ctx context.Context, c *access.Caller, lacks access.Right, verb, reason string) error {
	in := gate.Intent{Action: lacks.Action, Type: audit.Incident, Verb: verb, Resource: lacks.Resource, Reason: reason}
	return s.cfg.Gate.Use(ctx, c, in, func(context.Context, *audit.Event) error {
		return fault.New(api.CodeDenied, "the rights of the caller changed meanwhile")
	})
}

// identified checks the form of an id before anything is looked up or recorded under it.
func identified(id string) error {
	if incidents.ValidID(id) {
		return nil
	}
	return fault.New(api.CodeNotFound, "there is no such incident: an id is inc- and 24 characters").WithField("incident").
		WithNext("keyturn incident list names them")
}

// add writes an entry and counts it, inside the transaction of what it tells of. The incident is as it stands afterwards.
func (s *Service) add(ctx context.Context, tx store.Tx, id string, e incidents.Entry) (incidents.Incident, error) {
	i, err := tx.Incident(ctx, id)
	if err != nil {
		return i, err
	}
	i.Entries++
	if err := tx.UpdateIncident(ctx, i); err != nil {
		return i, err
	}
	i.Revision++
	e.Incident, e.Number, e.At = id, i.Entries, s.now()
	return i, tx.AddEntry(ctx, e)
}

// did is an entry of something that keyturn did by itself.
func did(text string) incidents.Entry {
	return incidents.Entry{Kind: incidents.Action, By: systemName, Text: text}
}

// stored reads an incident.
func (s *Service) stored(ctx context.Context, id string) (i incidents.Incident, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		i, err = tx.Incident(ctx, id)
		return err
	})
	return i, err
}

// view is an incident as the wire has it.
func view(i incidents.Incident) api.Incident {
	out := api.Incident{
		ID: i.ID, Type: string(i.Type), Severity: string(i.Severity), State: string(i.State), Opened: i.Opened, OpenedBy: i.OpenedBy,
		Reason: i.Reason, Details: i.Details, Emergency: i.Emergency, Versions: make([]api.IncidentVersion, len(i.Versions)),
		Keys: len(i.Targets), Job: i.Job, ClosedBy: i.ClosedBy, ClosedReason: i.ClosedReason,
	}
	for n, v := range i.Versions {
		out.Versions[n] = api.IncidentVersion{Key: v.Key, Version: v.Number}
	}
	if !i.Closed.IsZero() {
		out.Closed = &i.Closed
	}
	return out
}
