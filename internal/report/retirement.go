// Package report makes evidence: documents that say what the store and its audit log show, for people who will not take our
// word for it. It only reads.
//
//	svc := report.New(report.Config{Gate: g, Store: st, …})
//	doc, err := svc.Retirement(ctx, caller, "phi", 3)
//
// A retirement is the life of one version of one key: made, followed by another, moved away from, counted as gone from every
// dataset, destroyed. The statement is signed by the log's key. The events that it rests on come with it, each with an
// inclusion proof, and what the statement says of the version's life is derived from them (audit.Derive), so that whoever
// verifies derives it again and needs to trust nobody; `keyturn audit verify --retirement` does it offline.
package report

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Config is what a Service is made of; everything is required.
type Config struct {
	Gate  *gate.Gate
	Store store.Store
	Clock func() time.Time
	// Census counts, dataset by dataset, what stands under a version now.
	Census func(ctx context.Context, d datasets.Dataset, id envelope.KeyID, version uint32) ([]api.RetirementCensus, error)
	// Buried says whether a version stands on the list of destroyed versions outside the store.
	Buried func(id envelope.KeyID, version uint32) bool
}

// Service makes reports. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// mostEvents is how many events a retirement may rest on.
const mostEvents = 100_000

// Retirement is the signed statement about one version, with its proofs. A dataset that can't be counted now is in it, with
// the reason, and Complete is false then. Errors: not_found; limit when the version's life has more events than a document
// should hold.
func (s *Service) Retirement(ctx context.Context, c *access.Caller, key string, version uint32) (api.RetirementDocument, error) {
	if err := keys.ValidateName(key); err != nil {
		return api.RetirementDocument{}, fault.Wrap("", err, "reading the key's name").WithField("key")
	}
	if version == 0 {
		return api.RetirementDocument{}, fault.New(api.CodeInvalid, "reporting a retirement: the version isn't named").WithField("version").WithNext("say --version N; keyturn key show " + key + " lists them")
	}
	var out api.RetirementDocument
	in := gate.Intent{Action: access.KeyReport, Type: audit.Reporting, Verb: "retirement_reported", Resource: access.Resource{Kind: access.KindKey, Name: key}}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) (err error) {
		ev.KeyVersion = version
		out, err = s.retirement(ctx, key, version)
		ev.Details.Items = uint64(len(out.Proofs))
		return err
	})
	if err != nil {
		return api.RetirementDocument{}, err
	}
	return out, nil
}

func (s *Service) retirement(ctx context.Context, name string, version uint32) (doc api.RetirementDocument, err error) {
	r, sets, err := s.standing(ctx, name, version)
	if err != nil {
		return doc, err
	}
	names := make([]string, len(sets))
	for i, d := range sets {
		names[i] = d.Name
	}
	lines, err := s.lines(ctx, name, version, names)
	if err != nil {
		return doc, err
	}
	if err := audit.Derive(&r, lines); err != nil {
		return doc, err
	}
	// Datasets from which nothing was moved since the version was followed were looked at in vain.
	moved := audit.Moved(&r)
	lines = slices.DeleteFunc(lines, func(line []byte) bool { return !audit.Concerns(line, name, version, moved) })
	if err := audit.Derive(&r, lines); err != nil {
		return doc, err
	}
	statement, err := json.Marshal(r)
	if err != nil {
		return doc, fault.Wrap(api.CodeInternal, err, "writing a retirement")
	}
	doc = api.RetirementDocument{Format: audit.RetirementFormat, Statement: string(statement), Proofs: []api.RetirementProof{}}
	if doc.Signature, err = s.cfg.Gate.SignStatement(audit.RetirementFormat, statement); err != nil {
		return doc, err
	}
	proofs, err := s.cfg.Gate.Prove(ctx, lines)
	for _, p := range proofs {
		doc.Proofs = append(doc.Proofs, proofView(p))
	}
	return doc, err
}

func proofView(p audit.EventProof) api.RetirementProof {
	out := api.RetirementProof{Event: p.Event, Checkpoint: p.Checkpoint, Path: []byte{}}
	for _, h := range p.Path {
		out.Path = append(out.Path, h[:]...)
	}
	return out
}

// standing is what the store says of the version now, and the datasets that its key protects.
func (s *Service) standing(ctx context.Context, name string, version uint32) (r api.Retirement, sets []datasets.Dataset, err error) {
	var k keys.Key
	var all []datasets.Dataset
	err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if k, err = tx.KeyByName(ctx, name); err != nil {
			return err
		}
		all, err = tx.Datasets(ctx)
		return err
	})
	if err != nil {
		return r, nil, err
	}
	v, ok := k.Version(version)
	if !ok {
		return r, nil, fault.Newf(api.CodeNotFound, "key %s has no version %d", name, version).WithField("version").WithNext("keyturn key show " + name + " lists them")
	}
	r = api.Retirement{
		Log: s.cfg.Gate.Origin(), Key: k.Name, KeyID: k.ID.String(), Version: version, Purpose: string(k.Purpose), Algorithm: string(k.Algorithm),
		State: string(v.State), Activated: optional(v.Activated), LastOpened: optional(v.LastOpened), Operations: v.Operations, Bytes: v.Bytes,
		Tombstone: s.cfg.Buried(k.ID, version), Forced: v.Forced(), TakenAt: s.cfg.Clock().UTC().Truncate(time.Microsecond), Complete: true, Census: []api.RetirementCensus{},
	}
	for _, d := range all {
		counted, err := s.cfg.Census(ctx, d, k.ID, version)
		if err != nil {
			if ctx.Err() != nil {
				return r, nil, fault.Wrap("", context.Cause(ctx), "counting the datasets")
			}
			r.Complete = false
			counted = []api.RetirementCensus{{Dataset: d.Name, Problem: fault.MessageOf(err)}}
		}
		r.Census = append(r.Census, counted...)
		for _, col := range d.Columns {
			if col.KeyID == k.ID {
				sets = append(sets, d)
				break
			}
		}
	}
	return r, sets, nil
}

// lines are the events that concern the version, exported, oldest first.
func (s *Service) lines(ctx context.Context, key string, version uint32, sets []string) (lines [][]byte, err error) {
	filters := []gate.Filter{}
	for _, t := range []audit.EventType{audit.KeyCreate, audit.KeyRotation, audit.KeyState} {
		filters = append(filters, gate.Filter{Type: t, Resource: "key/" + key})
	}
	filters = append(filters, gate.Filter{Type: audit.ConfigWrite}) // datasets that were removed
	for _, d := range sets {
		filters = append(filters, gate.Filter{Type: audit.Reencryption, Resource: "dataset/" + d})
	}
	for _, f := range filters {
		err := s.cfg.Gate.Query(ctx, f, func(line []byte) error {
			if !audit.Concerns(line, key, version, sets) {
				return nil
			}
			if len(lines) == mostEvents {
				return fault.Newf(api.CodeLimit, "reporting a retirement: it rests on more than %d events", mostEvents).
					WithNext("export the whole log instead: keyturn audit export")
			}
			lines = append(lines, append([]byte(nil), line...))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
