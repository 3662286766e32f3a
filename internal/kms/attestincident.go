package kms

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/incidents"
)

// CreateIncident implements incidents.Tx.
func (t *attestedTx) CreateIncident(ctx context.Context, i incidents.Incident) (err error) {
	i.Revision = 1
	if i.MAC, err = t.by.sign(ctx, tableIncidents, incidentForm(i)); err != nil {
		return err
	}
	if err := t.Tx.CreateIncident(ctx, i); err != nil {
		return err
	}
	return t.count(ctx, tableIncidents, i.ID, "", i.MAC)
}

// Incident implements incidents.Tx.
func (t *attestedTx) Incident(ctx context.Context, id string) (incidents.Incident, error) {
	i, err := t.Tx.Incident(ctx, id)
	if err == nil {
		err = t.by.incident(ctx, i)
	}
	if err != nil {
		return incidents.Incident{}, err
	}
	return i, nil
}

// UpdateIncident implements incidents.Tx. What an incident is about stays as it stands in the row, so the row is what the
// new MAC is made over, with the changes: i may come from a list.
func (t *attestedTx) UpdateIncident(ctx context.Context, i incidents.Incident) error {
	row, err := t.Incident(ctx, i.ID)
	if err != nil {
		return err
	}
	before := row.MAC
	row.State, row.Job, row.Closed, row.ClosedBy, row.ClosedReason, row.Entries = i.State, i.Job, i.Closed, i.ClosedBy, i.ClosedReason, i.Entries
	row.Revision = i.Revision + 1
	if i.MAC, err = t.by.sign(ctx, tableIncidents, incidentForm(row)); err != nil {
		return err
	}
	if err := t.Tx.UpdateIncident(ctx, i); err != nil {
		return err
	}
	return t.count(ctx, tableIncidents, i.ID, before, i.MAC)
}

// AddEntry implements incidents.Tx.
func (t *attestedTx) AddEntry(ctx context.Context, e incidents.Entry) (err error) {
	if e.MAC, err = t.by.sign(ctx, tableEntries, entryForm(e)); err != nil {
		return err
	}
	if err := t.Tx.AddEntry(ctx, e); err != nil {
		return err
	}
	return t.count(ctx, tableEntries, fmt.Sprintf("%s/%d", e.Incident, e.Number), "", e.MAC)
}

// Entries implements incidents.Tx. One that was changed, or is missing, is an error: what an incident says is evidence as a
// whole or not at all.
func (t *attestedTx) Entries(ctx context.Context, incident string) ([]incidents.Entry, error) {
	i, err := t.Incident(ctx, incident)
	if err != nil {
		return nil, err
	}
	list, err := t.Tx.Entries(ctx, incident)
	if err == nil {
		err = t.by.entries(ctx, i, list)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}
