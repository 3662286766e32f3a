package store

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
)

const incidentColumns = `id, type, severity, state, reason, details, emergency, job, versions, targets, opened, opened_by,
	closed, closed_by, closed_reason, entries, revision, mac`

// storedVersion is a version or a target of an incident as it is stored.
type storedVersion struct {
	Key    string `json:"key"`
	KeyID  string `json:"keyId"`
	Number uint32 `json:"version"`
	Last   uint32 `json:"last,omitempty"` // of targets
}

func readIncident(row scanner) (i incidents.Incident, err error) {
	var versions, targets string
	err = row.Scan(&i.ID, &i.Type, &i.Severity, &i.State, &i.Reason, &i.Details, &i.Emergency, &i.Job, &versions, &targets,
		into{&i.Opened}, &i.OpenedBy, into{&i.Closed}, &i.ClosedBy, &i.ClosedReason, &i.Entries, &i.Revision, &i.MAC)
	if err != nil {
		return i, err
	}
	err = eachStored(versions, func(v storedVersion, id envelope.KeyID) {
		i.Versions = append(i.Versions, incidents.Version{Key: v.Key, KeyID: id, Number: v.Number})
	})
	if err != nil {
		return i, err
	}
	return i, eachStored(targets, func(v storedVersion, id envelope.KeyID) {
		i.Targets = append(i.Targets, incidents.Target{Key: v.Key, KeyID: id, From: v.Number, Last: v.Last})
	})
}

func eachStored(text string, add func(storedVersion, envelope.KeyID)) error {
	const doing = "reading what an incident is about"
	var list []storedVersion
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return fault.Wrap(api.CodeIntegrity, err, doing)
	}
	for _, v := range list {
		id, err := envelope.ParseKeyID(v.KeyID)
		if err != nil {
			return fault.Wrap(api.CodeIntegrity, err, doing)
		}
		add(v, id)
	}
	return nil
}

// CreateIncident implements incidents.Tx.
func (t *txn) CreateIncident(ctx context.Context, i incidents.Incident) error {
	versions, targets := make([]storedVersion, len(i.Versions)), make([]storedVersion, len(i.Targets))
	for n, v := range i.Versions {
		versions[n] = storedVersion{Key: v.Key, KeyID: v.KeyID.String(), Number: v.Number}
	}
	for n, v := range i.Targets {
		targets[n] = storedVersion{Key: v.Key, KeyID: v.KeyID.String(), Number: v.From, Last: v.Last}
	}
	const doing = "storing an incident"
	versionText, err := json.Marshal(versions)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, doing)
	}
	targetText, err := json.Marshal(targets)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, doing)
	}
	return t.mustChange(ctx, taken("incident"), doing,
		`INSERT INTO incidents (`+incidentColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 1, $17)
		ON CONFLICT DO NOTHING`,
		i.ID, string(i.Type), string(i.Severity), string(i.State), i.Reason, i.Details, i.Emergency, i.Job, string(versionText), string(targetText),
		i.Opened, i.OpenedBy, i.Closed, i.ClosedBy, i.ClosedReason, i.Entries, i.MAC)
}

// Incident implements incidents.Tx.
func (t *txn) Incident(ctx context.Context, id string) (incidents.Incident, error) {
	return single(ctx, t, notFound("incident"), "reading an incident", readIncident, `SELECT `+incidentColumns+` FROM incidents WHERE id = $1`, id)
}

// Incidents implements incidents.Tx.
func (t *txn) Incidents(ctx context.Context, f incidents.Filter) ([]incidents.Incident, error) {
	c := &conditions{}
	if f.State != "" {
		c.add(`state = $%d`, string(f.State))
	}
	if f.After != "" {
		c.add(`id < $%d`, f.After)
	}
	return all(ctx, t, "listing incidents", readIncident,
		`SELECT `+incidentColumns+` FROM incidents`+c.where()+` ORDER BY id DESC LIMIT `+strconv.Itoa(f.PageSize()), c.args...)
}

// CountIncidents implements incidents.Tx.
func (t *txn) CountIncidents(ctx context.Context) (map[incidents.State]int, error) {
	return countBy[incidents.State](ctx, t, "counting incidents", `SELECT state, count(*) FROM incidents GROUP BY state`)
}

// UpdateIncident implements incidents.Tx.
func (t *txn) UpdateIncident(ctx context.Context, i incidents.Incident) error {
	return t.mustChange(ctx, stale("incident"), "changing an incident",
		`UPDATE incidents SET state = $3, job = $4, closed = $5, closed_by = $6, closed_reason = $7, entries = $8, mac = $9, revision = revision + 1
		WHERE id = $1 AND revision = $2`, i.ID, i.Revision, string(i.State), i.Job, i.Closed, i.ClosedBy, i.ClosedReason, i.Entries, i.MAC)
}

// AddEntry implements incidents.Tx.
func (t *txn) AddEntry(ctx context.Context, e incidents.Entry) error {
	const doing = "adding an entry to an incident"
	n, err := t.exec(ctx, doing,
		`INSERT INTO incident_entries (incident_id, number, kind, at, by_name, text, data, mac)
		SELECT i.id, $2, $3, $4, $5, $6, $7, $8 FROM incidents i WHERE i.id = $1 ON CONFLICT DO NOTHING`,
		e.Incident, e.Number, string(e.Kind), e.At, e.By, e.Text, e.Data, e.MAC)
	if err != nil || n > 0 {
		return err
	}
	if _, err := t.Incident(ctx, e.Incident); err != nil {
		return err
	}
	return stale("incident")
}

// Entries implements incidents.Tx.
func (t *txn) Entries(ctx context.Context, incident string) ([]incidents.Entry, error) {
	return all(ctx, t, "reading the entries of an incident", func(row scanner) (e incidents.Entry, err error) {
		return e, row.Scan(&e.Incident, &e.Number, &e.Kind, into{&e.At}, &e.By, &e.Text, &e.Data, &e.MAC)
	}, `SELECT incident_id, number, kind, at, by_name, text, data, mac FROM incident_entries WHERE incident_id = $1 ORDER BY number`, incident)
}
