package httpapi

import (
	"context"
	"net/http"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/fault"
)

// Health is what GET /health answers. The route is public, so it holds counts and switches, and no names.
type Health struct {
	Status      string      `json:"status"` // "ok", or "degraded" when a key is overdue or requests can't be served
	Version     string      `json:"version"`
	KeyRotation KeyRotation `json:"key_rotation"`
	FIPS        api.FIPS    `json:"fips"`
}

// KeyRotation says how the keys stand against their cryptoperiods.
type KeyRotation struct {
	Status  string `json:"status"` // "compliant", "due_soon" or "overdue"
	Keys    int    `json:"keys"`
	DueSoon int    `json:"due_soon"`
	Overdue int    `json:"overdue"`
}

// Condition is what GET /healthz and GET /readyz answer.
type Condition struct {
	Status string `json:"status"`
}

// healthz says that the process runs: nothing is asked of the store, so that an outage of it doesn't make an
// orchestrator kill every node.
func (a *API) healthz(context.Context, *access.Caller, *Params) (Condition, error) {
	return Condition{Status: "ok"}, nil
}

// readyz says whether requests can be served: store open, audit log writable, keys unwrapped.
func (a *API) readyz(context.Context, *access.Caller, *Params) (Condition, error) {
	if err := a.ready(); err != nil {
		return Condition{}, err
	}
	return Condition{Status: "ready"}, nil
}

func (a *API) health(ctx context.Context, _ *access.Caller, _ *Params) (Health, error) {
	enabled, enforced, module := buildinfo.FIPS()
	h := Health{Status: "ok", Version: buildinfo.String(), FIPS: api.FIPS{Enabled: enabled, Enforced: enforced, Version: module}}
	if a.ready() != nil {
		h.Status = "degraded"
	}
	c, err := a.services.System.Compliance(ctx)
	h.KeyRotation = KeyRotation{Status: c.Status, Keys: c.Keys, DueSoon: c.DueSoon, Overdue: c.Overdue}
	if c.Overdue > 0 {
		h.Status = "degraded"
	}
	return h, err
}

// openAPI answers GET /openapi.json.
func (a *API) openAPI(x *exchange) error {
	doc, err := a.openapi()
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "printing the OpenAPI document")
	}
	x.send(http.StatusOK, jsonType, doc)
	return nil
}
