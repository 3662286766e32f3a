package server

import (
	"context"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/authn/peer"
	"github.com/keyturn/keyturn/internal/authn/token"
	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/httpapi"
	"github.com/keyturn/keyturn/internal/incident"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/oversight"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/report"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// openServices builds what answers requests: services, the runner of their jobs, the sign-in methods, the API.
func (s *Server) openServices(ctx context.Context) (err error) {
	s.datasets = s.newDatasets()
	s.kms = s.newKMS()
	s.rotation = s.newRotation()
	if err := s.kms.Start(ctx); err != nil {
		return err
	}
	if s.alone {
		if err := s.datasets.BindRecords(ctx); err != nil {
			return err
		}
	}
	if s.opts.AcceptClock != "" {
		if err := s.kms.AcceptClock(ctx, s.opts.AcceptClock); err != nil {
			return err
		}
	}
	if s.opts.AcceptRows != "" {
		err := s.kms.Alert(ctx, kms.Warning{Name: "rows_accepted", Resource: access.Resource{Kind: access.KindSystem}, Reason: s.opts.AcceptRows})
		if err != nil {
			return err
		}
	}
	s.incidents = incident.New(incident.Config{
		Gate: s.gate, Store: s.store, Keys: s.kms, Datasets: s.datasets, Clock: s.time.Now, Enqueue: s.enqueue,
		PublicKey: s.auditKey, Version: buildinfo.String(),
	})
	if s.runner, err = runner.New(s.runnerConfig(), s.store, s.jobHandlers()...); err != nil {
		return err
	}
	s.listenToNodes(ctx)
	metrics := httpapi.NewMetrics()
	metrics.Registry().MustRegister(newFigures(s.kms.Compliance, s.gate.Err))
	s.local = authn.NewLocal(kms.Directory{Store: s.store}, &s.signIns, s.time.Now)
	s.api, err = httpapi.New(httpapi.Config{
		Services: s.services(),
		Authn: []authn.Method{
			token.New(kms.Directory{Store: s.store}, &s.signIns, s.time.Now),
			peer.New(s.local, os.Getuid()),
			embedded{s.local},
		},
		Record: s.gate, Metrics: metrics, Ready: s.isReady, Log: s.log, Clock: s.time.Wall,
	})
	return err
}

func (s *Server) newKMS() *kms.Service {
	return kms.New(kms.Config{
		Gate: s.gate, Ring: s.ring, Store: s.store, Clock: s.time, Node: s.cfg.Node,
		DestroyQuiet: s.cfg.Keys.DestroyQuiet,
		Enqueue:      s.enqueue,
		Tombstones:   &tombstoneFile{path: filepath.Join(s.dir, TombstoneFile)},
		Masters:      masterConfig{dir: s.dir, environ: s.opts.Environ, set: s.opts.Set},
		OtherNodes:   s.gate.Others,
		Policies:     append(keys.ShippedPolicies(), s.cfg.Policies...),
		Rotated:      func(ctx context.Context, tx store.Tx, r keys.Rotation) error { return s.rotation.Rotated(ctx, tx, r) },
		SignedOut:    s.signIns.Drop,
		Dependents:   []kms.Dependents{dependents{s.datasets}},
		Checks:       s.checks(),
		Environment:  s.cfg.Environment,
		Started:      s.started,
	})
}

// checkRows is nil while the signed rows are those that were last written, as far as that can be told.
func (s *Server) checkRows(ctx context.Context) error {
	_, err := s.store.CheckRows(ctx, s.time.Wall())
	return err
}

// isReady is nil while requests can be answered: recorded, and with keys that may be used.
func (s *Server) isReady() error {
	if err := s.ring.Usable(); err != nil {
		return err
	}
	return s.gate.Ready()
}

func (s *Server) newRotation() *rotation.Service {
	return rotation.New(rotation.Config{
		Gate: s.gate, Store: s.store, Keys: s.kms, Datasets: s.datasets, Clock: s.time.Now, Enqueue: s.enqueue, Masters: s.kms.MastersUsable, Rows: s.checkRows, Log: s.log, KeepJobs: s.cfg.Jobs.Keep,
		Schedules: rotation.Schedules{Check: s.cfg.Rotation.Check, Health: s.cfg.Rotation.Health, Zone: s.cfg.Rotation.Zone},
	})
}

// services is the table of what the routes call.
func (s *Server) services() httpapi.Services {
	return httpapi.Services{
		Keys: s.kms, Crypto: s.kms, Masters: s.kms, Principals: s.kms, System: s.kms, Datasets: s.datasets, Rotation: s.rotation, Incidents: s.incidents,
		Reports: report.New(report.Config{Gate: s.gate, Store: s.store, Clock: s.time.Now, Census: s.underVersion, Buried: s.kms.Buried}),
		Jobs: oversight.NewJobs(oversight.JobsConfig{
			Gate: s.gate, Store: s.store, Runner: s.runner, Work: s.startWork, Clock: s.time.Now, Counts: reencrypt.RunOf, Needs: s.jobNeeds, MayRetry: reencrypt.MayRetry,
			Steered: s.incidents.Steered,
		}),
		Audit: oversight.NewLog(oversight.LogConfig{Gate: s.gate, Store: s.store, Clock: s.time.Now, PublicKey: s.auditKey}),
	}
}
