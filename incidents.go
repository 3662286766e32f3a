package keyturn

import (
	"context"
	"net/url"

	"github.com/keyturn/keyturn/api"
)

// IncidentFilter narrows Incidents. Its zero value is the newest page of all incidents.
type IncidentFilter struct {
	State string // open or closed; empty for both
	After string // the Next of the page before
}

// Emergency opens an incident and begins to rotate keys in it: they get new versions, compromised ones are marked, what
// stands under those is re-encrypted ahead of all other work. The incident's Job does it; follow it with WatchJob, and see
// what it has come to with Incident. Needs incident.write, and key.rotate and key.compromise on every key. Whatever is wrong
// is said before anything is changed. Codes: invalid, not_found, wrong_state, denied.
func (c *Client) Emergency(ctx context.Context, in api.EmergencyRequest) (api.Emergency, error) {
	return post[api.Emergency](ctx, c, route("emergency"), in)
}

// PlanEmergency finds out what Emergency would do with the same request, and changes nothing: which keys, which versions, which
// datasets hold them, who could use them. It counts every dataset, so it isn't bounded by the client's timeout but by ctx.
// Rights and codes are those of Emergency.
func (c *Client) PlanEmergency(ctx context.Context, in api.EmergencyRequest) (api.EmergencyPlan, error) {
	return post[api.EmergencyPlan](ctx, c.patient(), route("emergency", "plan"), in)
}

// OpenIncident opens an incident that changes no key. Its Job finds out who could use the versions that it names, who did,
// and which datasets hold them. Needs incident.write, as NoteIncident and CloseIncident.
func (c *Client) OpenIncident(ctx context.Context, in api.OpenIncidentRequest) (api.Incident, error) {
	return post[api.Incident](ctx, c, route("incidents"), in)
}

// Incidents is a page of incidents, newest first. Needs incident.read, as Incident and IncidentReport.
func (c *Client) Incidents(ctx context.Context, f IncidentFilter) (api.IncidentList, error) {
	q := url.Values{}
	set(q, "state", f.State)
	set(q, "after", f.After)
	return read[api.IncidentList](ctx, c, route("incidents")+query(q))
}

// Incident is one incident with its progress. It counts every dataset anew, so it isn't bounded by the client's timeout but
// by ctx. Codes: not_found.
func (c *Client) Incident(ctx context.Context, id string) (api.IncidentDetail, error) {
	return read[api.IncidentDetail](ctx, c.patient(), route("incidents", id))
}

// NoteIncident adds a note. Codes: wrong_state when the incident is closed.
func (c *Client) NoteIncident(ctx context.Context, id, text string) (api.Incident, error) {
	return post[api.Incident](ctx, c, route("incidents", id, "notes"), api.IncidentNoteRequest{Text: text})
}

// CloseIncident ends an incident. It counts every dataset first, as Incident does. Codes: in_use while values stand under a
// compromised version, or nobody knows; wrong_state while its job hasn't done everything.
func (c *Client) CloseIncident(ctx context.Context, id, reason string) (api.Incident, error) {
	return post[api.Incident](ctx, c.patient(), route("incidents", id, "close"), api.CloseIncidentRequest{Reason: reason})
}

// CloseIncidentAnyway is CloseIncident although datasets were removed while values stood in them, or uncounted; the incident says so.
func (c *Client) CloseIncidentAnyway(ctx context.Context, id, reason string) (api.Incident, error) {
	return post[api.Incident](ctx, c.patient(), route("incidents", id, "close"), api.CloseIncidentRequest{Reason: reason, Removed: true})
}

// IncidentReport is the evidence of an incident: what Incident says, every event of the audit log that belongs to it with its
// place there, and a signed checkpoint that covers them.
func (c *Client) IncidentReport(ctx context.Context, id string) (api.IncidentReport, error) {
	return read[api.IncidentReport](ctx, c.patient(), route("incidents", id, "report"))
}
