package httpapi

import (
	"context"
	"math"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
)

// The methods of services come in four shapes; these fit them to handlers.

func plain[Out any](f func(context.Context, *access.Caller) (Out, error)) func(context.Context, *access.Caller, *Params) (Out, error) {
	return func(ctx context.Context, c *access.Caller, _ *Params) (Out, error) { return f(ctx, c) }
}

func named[Out any](f func(context.Context, *access.Caller, string) (Out, error)) func(context.Context, *access.Caller, *Params) (Out, error) {
	return func(ctx context.Context, c *access.Caller, p *Params) (Out, error) { return f(ctx, c, p.Name) }
}

func plainIn[In, Out any](f func(context.Context, *access.Caller, In) (Out, error)) func(context.Context, *access.Caller, *Params, In) (Out, error) {
	return func(ctx context.Context, c *access.Caller, _ *Params, in In) (Out, error) { return f(ctx, c, in) }
}

func namedIn[In, Out any](f func(context.Context, *access.Caller, string, In) (Out, error)) func(context.Context, *access.Caller, *Params, In) (Out, error) {
	return func(ctx context.Context, c *access.Caller, p *Params, in In) (Out, error) {
		return f(ctx, c, p.Name, in)
	}
}

// The rows that read query parameters, and those whose service has a shape of its own.

func (a *API) createKey(ctx context.Context, c *access.Caller, _ *Params, in api.CreateKeyRequest) (api.Key, error) {
	return a.services.Keys.Create(ctx, c, in)
}

func (a *API) listKeys(ctx context.Context, c *access.Caller, p *Params) (api.KeyList, error) {
	after, limit, err := p.page()
	if err != nil {
		return api.KeyList{}, err
	}
	return a.services.Keys.List(ctx, c, after, limit)
}

func (a *API) removeDataset(ctx context.Context, c *access.Caller, p *Params) error {
	force, err := p.flag("force")
	if err != nil {
		return err
	}
	reason, err := p.text("reason")
	if err != nil {
		return err
	}
	return a.services.Datasets.Remove(ctx, c, p.Name, api.RemoveDatasetRequest{Force: force, Reason: reason})
}

func (a *API) removePolicy(ctx context.Context, c *access.Caller, p *Params) error {
	return a.services.Rotation.RemovePolicy(ctx, c, p.Name)
}

func (a *API) retirement(ctx context.Context, c *access.Caller, p *Params) (api.RetirementDocument, error) {
	version, err := p.number("version", 0, math.MaxUint32)
	if err != nil {
		return api.RetirementDocument{}, err
	}
	return a.services.Reports.Retirement(ctx, c, p.Name, uint32(version))
}

func (a *API) rotationHistory(ctx context.Context, c *access.Caller, p *Params) (api.RotationHistory, error) {
	after, limit, err := p.page()
	if err != nil {
		return api.RotationHistory{}, err
	}
	return a.services.Rotation.History(ctx, c, p.Name, after, limit)
}

func (a *API) listJobs(ctx context.Context, c *access.Caller, p *Params) (api.JobList, error) {
	state, err := p.text("state")
	if err != nil {
		return api.JobList{}, err
	}
	after, limit, err := p.page()
	if err != nil {
		return api.JobList{}, err
	}
	return a.services.Jobs.List(ctx, c, state, after, limit)
}

func (a *API) listIncidents(ctx context.Context, c *access.Caller, p *Params) (api.IncidentList, error) {
	state, err := p.text("state")
	if err != nil {
		return api.IncidentList{}, err
	}
	after, limit, err := p.page()
	if err != nil {
		return api.IncidentList{}, err
	}
	return a.services.Incidents.List(ctx, c, state, after, limit)
}

func (a *API) jobFailures(ctx context.Context, c *access.Caller, p *Params) (api.JobFailureList, error) {
	offset, err := p.number("offset", 0, 1<<31-1)
	if err != nil {
		return api.JobFailureList{}, err
	}
	_, limit, err := p.page()
	if err != nil {
		return api.JobFailureList{}, err
	}
	return a.services.Jobs.Failures(ctx, c, p.Name, offset, limit)
}

func (a *API) watchJob(ctx context.Context, c *access.Caller, p *Params, w *lineWriter) error {
	return a.services.Jobs.Watch(ctx, c, p.Name, w.job)
}

// AuditLine is one event of the audit log as it is exported. Its members are in docs/audit-format.md; details
// may gain members.
type AuditLine struct {
	Timestamp   string         `json:"timestamp"`
	EventType   string         `json:"event_type"`
	Action      string         `json:"action"`
	Success     bool           `json:"success"`
	UserID      string         `json:"user_id"`
	Role        string         `json:"role,omitempty"`
	Resource    string         `json:"resource"`
	KeyVersion  uint32         `json:"key_version,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	RequestID   string         `json:"request_id,omitempty"`
	SourceIP    string         `json:"source_ip,omitempty"`
	Details     map[string]any `json:"details,omitempty"`
	ProcessID   int            `json:"process_id"`
	Environment string         `json:"environment"`
	Shard       int            `json:"shard"`
	Index       uint64         `json:"index"`
}

func (a *API) queryAudit(ctx context.Context, c *access.Caller, p *Params, w *lineWriter) error {
	f, err := p.events()
	if err != nil {
		return err
	}
	return a.services.Audit.Query(ctx, c, f, w)
}

// exportAudit exports the whole log; a selection is a query by another name, and doesn't verify.
func (a *API) exportAudit(ctx context.Context, c *access.Caller, p *Params, w *lineWriter) error {
	f, err := p.events()
	if err != nil {
		return err
	}
	if len(p.query) > 0 {
		return a.services.Audit.Query(ctx, c, f, w)
	}
	return a.services.Audit.Export(ctx, c, w)
}

func (a *API) tailAudit(ctx context.Context, c *access.Caller, p *Params, w *lineWriter) error {
	f, err := p.events()
	if err != nil {
		return err
	}
	follow, err := p.flag("follow")
	if err != nil {
		return err
	}
	return a.services.Audit.Tail(ctx, c, f, follow, w, w.Flush)
}
