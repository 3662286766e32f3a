package server

import (
	"context"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

func (s *Server) newDatasets() *reencrypt.Service {
	return reencrypt.New(reencrypt.Config{
		Gate: s.gate, Ring: s.ring, Store: s.store, Clock: s.time.Now, Enqueue: s.enqueue, Raise: s.raise, Recall: s.recall, Getenv: s.getenv,
		Buried: func(id envelope.KeyID, version uint32) bool { return s.kms.Buried(id, version) }, // kms is made later, and asks datasets
	}, datasetDrivers...)
}

// getenv reads the environment that this server was opened with.
func (s *Server) getenv(name string) string {
	value := ""
	for _, kv := range environOr(s.opts.Environ) { // the last one wins, as in a process
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// underVersion lets reports count what stands under a version.
func (s *Server) underVersion(ctx context.Context, d datasets.Dataset, id envelope.KeyID, version uint32) ([]api.RetirementCensus, error) {
	columns, err := s.datasets.Under(ctx, d, id, version)
	out := make([]api.RetirementCensus, len(columns))
	for i, c := range columns {
		out[i] = api.RetirementCensus{Dataset: c.Dataset, Column: c.Column, Rows: c.Rows}
	}
	return out, err
}

// dependents lets kms ask datasets, its neighbour, what hangs on a version.
type dependents struct{ *reencrypt.Service }

func (d dependents) Dependents(ctx context.Context, id envelope.KeyID, version uint32) ([]kms.Dependent, error) {
	found, err := d.Service.Dependents(ctx, id, version)
	out := make([]kms.Dependent, len(found))
	for i, f := range found {
		out[i] = kms.Dependent{Resource: "dataset/" + f.Dataset, Column: f.Column, Rows: f.Rows}
	}
	return out, err
}
