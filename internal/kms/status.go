package kms

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

var systemResource = access.Resource{Kind: access.KindSystem}

// Status is one screen of the whole store.
func (s *Service) Status(ctx context.Context, c *access.Caller) (api.Status, error) {
	var out api.Status
	in := gate.Intent{Action: access.SystemRead, Type: audit.ConfigRead, Verb: "status", Resource: systemResource}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, _ *audit.Event) (err error) {
		out, err = s.status(ctx)
		return err
	})
	if err != nil {
		return api.Status{}, err
	}
	return out, nil
}

func (s *Service) status(ctx context.Context) (api.Status, error) {
	enabled, enforced, module := buildinfo.FIPS()
	out := api.Status{
		Version: buildinfo.String(), Store: s.st.Describe(), StoreID: s.st.ID(), Environment: s.cfg.Environment,
		FIPS: api.FIPS{Enabled: enabled, Enforced: enforced, Version: module}, Started: s.cfg.Started,
	}
	rules, err := s.Rules(ctx)
	if err != nil {
		return out, err
	}
	var late []string
	err = s.st.View(ctx, func(tx store.Tx) error {
		if err := countAll(ctx, tx, &out); err != nil {
			return err
		}
		late = []string{}
		now := s.clock()
		return tx.EachActive(ctx, func(v *keys.ActiveVersion) error {
			if times, _ := rules.TimesOf(v); times.Overdue(now) {
				late = append(late, v.Key)
			}
			return nil
		})
	})
	slices.Sort(late)
	out.Overdue = late
	return out, err
}

// countAll fills in the counts, all of one snapshot.
func countAll(ctx context.Context, tx store.Tx, out *api.Status) error {
	n, states, err := tx.CountKeys(ctx)
	if err != nil {
		return err
	}
	out.Keys, out.Versions = n, map[string]int{}
	for state, n := range states {
		out.Versions[string(state)] = n
	}
	jobs, err := tx.CountJobs(ctx)
	if err != nil {
		return err
	}
	out.Jobs = map[string]int{}
	for state, n := range jobs {
		out.Jobs[string(state)] = n
	}
	sets, err := tx.Datasets(ctx)
	if err != nil {
		return err
	}
	principals, err := tx.Principals(ctx)
	if err != nil {
		return err
	}
	out.Datasets, out.Principals = len(sets), len(principals)
	cases, err := tx.CountIncidents(ctx)
	if err != nil {
		return err
	}
	out.Incidents = map[string]int{}
	for state, n := range cases {
		out.Incidents[string(state)] = n
	}
	out.Audit, err = auditHead(ctx, tx)
	return err
}

func auditHead(ctx context.Context, tx store.Tx) (api.AuditHead, error) {
	var out api.AuditHead
	heads, err := tx.Heads(ctx)
	if err != nil {
		return out, err
	}
	for _, h := range heads {
		out.Events += h.Size
	}
	last, err := tx.LastCheckpoint(ctx)
	if fault.CodeOf(err) == api.CodeNotFound {
		return out, nil
	}
	out.CheckpointSize, out.CheckpointAt = last.Events, optional(last.Time)
	return out, err
}

// compliance remembers the last count, because /health is public and the count walks all keys.
type compliance struct {
	mu    sync.Mutex // held during a count: whoever comes meanwhile gets the same
	at    time.Time
	count Compliance
}

// Compliance says how the keys stand against their cryptoperiods.
type Compliance struct {
	Status                 string // the worst of all keys: compliant, due_soon or overdue
	Keys, DueSoon, Overdue int
}

// complianceAge is how long a count is remembered.
const complianceAge = 10 * time.Second

// Compliance counts without names and without an event: for health, which is public. It is at most ten seconds old.
func (s *Service) Compliance(ctx context.Context) (Compliance, error) {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	now := s.clock()
	if age := now.Sub(h.at); !h.at.IsZero() && age >= 0 && age < complianceAge {
		return h.count, nil
	}
	rules, err := s.Rules(ctx)
	if err != nil {
		return Compliance{}, err
	}
	var count Compliance
	err = s.st.View(ctx, func(tx store.Tx) error {
		count = Compliance{Status: compliant}
		n, _, err := tx.CountKeys(ctx)
		if err != nil {
			return err
		}
		count.Keys = n
		return tx.EachActive(ctx, func(v *keys.ActiveVersion) error {
			times, _ := rules.TimesOf(v)
			count.add(standing(times, now))
			return nil
		})
	})
	if err == nil {
		h.at, h.count = now, count
	}
	return count, err
}

// add counts a key that has an active version.
func (c *Compliance) add(status string) {
	switch status {
	case overdue:
		c.Overdue++
		c.Status = overdue
	case dueSoon:
		c.DueSoon++
		if c.Status == compliant {
			c.Status = dueSoon
		}
	}
}
