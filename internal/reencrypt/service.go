package reencrypt

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Config is what a Service is made of; everything is required.
type Config struct {
	Gate  *gate.Gate
	Ring  *keyring.Ring
	Store store.Store
	Clock func() time.Time
	// Enqueue puts a job into the queue, inside the transaction that makes it necessary.
	Enqueue func(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error)
	// Raise puts a job that was enqueued before all that isn't urgent.
	Raise func(ctx context.Context, tx store.Tx, id string) (jobs.Job, error)
	// Recall has a running job begin its next chunk at once.
	Recall func(ctx context.Context, tx store.Tx, id string) error
	// Getenv reads the environment of this process, for datasets whose connection is named by a variable.
	Getenv func(name string) string
	// Buried says whether a version stands on the list of destroyed versions outside the store: whatever the store says, it
	// neither seals nor opens.
	Buried func(id envelope.KeyID, version uint32) bool
}

// Service is what `keyturn dataset` does. It is safe for concurrent use; it holds no connection between two calls.
type Service struct {
	cfg     Config
	drivers map[string]Driver // by scheme; never changed after New
}

// New makes a Service with the drivers of the databases that it knows.
func New(cfg Config, drivers ...Driver) *Service {
	s := &Service{cfg: cfg, drivers: map[string]Driver{}}
	for _, d := range drivers {
		for _, scheme := range d.Schemes() {
			s.drivers[scheme] = d
		}
	}
	return s
}

func resource(name string) access.Resource {
	return access.Resource{Kind: access.KindDataset, Name: name}
}

// allowed lets a method ask another database only for somebody who may; the gate decides again, and records.
func allowed(c *access.Caller, a access.Action, r access.Resource) bool {
	return c != nil && access.Decide(c.Principal, a, r).Allowed
}

func actor(c *access.Caller) string {
	if c == nil || c.Principal == nil {
		return ""
	}
	return c.Principal.Name
}

// system is who works on jobs: the right to have the work done was decided when it was asked for.
func system() *access.Caller {
	return &access.Caller{
		Principal: &access.Principal{ID: "system", Name: "system", Role: access.RoleOwner, Scope: []string{"*"}},
		Method:    "internal",
	}
}

// named checks a dataset's name before anything is looked up or recorded under it.
func named(name string) error {
	if keys.ValidateName(name) != nil {
		return fault.New(api.CodeNotFound, "there is no dataset of this name").WithField("dataset").WithNext("keyturn dataset list names them")
	}
	return nil
}

// record reads a dataset.
func (s *Service) record(ctx context.Context, name string) (d datasets.Dataset, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		d, err = tx.Dataset(ctx, name)
		return err
	})
	return d, err
}

// List is every dataset that the caller may know of, in name order.
func (s *Service) List(ctx context.Context, c *access.Caller) (api.DatasetList, error) {
	var out api.DatasetList
	in := gate.Intent{Action: access.DatasetRead, Type: audit.ConfigRead, Verb: "listed", Resource: resource("")}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		all, err := s.all(ctx)
		out.Datasets = []api.Dataset{}
		for i := range all {
			if allowed(c, access.DatasetRead, resource(all[i].Name)) {
				out.Datasets = append(out.Datasets, view(&all[i], nil))
			}
		}
		ev.Details.Count = uint64(len(out.Datasets))
		return err
	})
	if err != nil {
		return api.DatasetList{}, err
	}
	return out, nil
}

func (s *Service) all(ctx context.Context) (list []datasets.Dataset, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		list, err = tx.Datasets(ctx)
		return err
	})
	return list, err
}

// Show is one dataset.
func (s *Service) Show(ctx context.Context, c *access.Caller, name string) (out api.Dataset, err error) {
	if err := named(name); err != nil {
		return out, err
	}
	in := gate.Intent{Action: access.DatasetRead, Type: audit.ConfigRead, Verb: "shown", Resource: resource(name)}
	err = s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, _ *audit.Event) error {
		d, err := s.record(ctx, name)
		out = view(&d, nil)
		return err
	})
	if err != nil {
		return api.Dataset{}, err
	}
	return out, nil
}

// Remove forgets a dataset; its table is not touched, and what is encrypted there stays so. Errors: in_use while a job
// works on it, while values of ours stand in it, which nothing keeps from being lost then, and while it can't be counted. With force
// it is forgotten all the same, by whoever may force the destruction of its keys; that is an alert.
func (s *Service) Remove(ctx context.Context, c *access.Caller, name string, req api.RemoveDatasetRequest) error {
	if err := named(name); err != nil {
		return err
	}
	if req.Force && strings.TrimSpace(req.Reason) == "" {
		return fault.New(api.CodeInvalid, "forgetting a dataset in which values may be left: a reason is needed").WithField("reason")
	}
	in := gate.Intent{Action: access.DatasetWrite, Type: audit.ConfigWrite, Verb: audit.DatasetRemoved, Resource: resource(name), Reason: req.Reason}
	var l leaving
	var checked error
	if allowed(c, access.DatasetWrite, resource(name)) {
		if l, checked = s.leave(ctx, name); checked == nil && req.Force {
			if err := s.mayForget(ctx, c, &l, in); err != nil {
				return err
			}
		} else if checked == nil {
			checked = l.refusal()
		}
	}
	return s.cfg.Gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		if checked != nil {
			return checked
		}
		d, err := tx.Dataset(ctx, name)
		if err != nil {
			return err
		}
		if d.ID != l.d.ID || d.Revision != l.d.Revision {
			return fault.New(api.CodeConflict, "the dataset was changed while it was counted").WithField("dataset").WithNext("try again")
		}
		ev.Details.Dataset, ev.Details.Table, ev.Details.Rows, ev.Details.Scope, ev.Details.State = d.Name, d.Table, uint64(l.rows), l.scope(), audit.RemovedCounted
		if l.unknown != nil {
			ev.Details.State = "unknown"
		}
		if err := idle(ctx, tx, name); err != nil {
			return err
		}
		return tx.DeleteDataset(ctx, name, d.Revision)
	})
}

// idle refuses while a job on the dataset hasn't ended.
func idle(ctx context.Context, tx store.Tx, name string) error {
	unfinished, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running, jobs.Paused}, Subject: subject(name), Limit: 1})
	if err != nil || len(unfinished) == 0 {
		return err
	}
	return fault.Newf(api.CodeInUse, "job %s works on dataset %s", unfinished[0].ID, name).WithField("dataset").
		WithNext("wait for it, or end it: keyturn job cancel " + unfinished[0].ID)
}

// view is a dataset as the API shows it.
func view(d *datasets.Dataset, notes []string) api.Dataset {
	out := api.Dataset{
		Dataset: d.Name, Database: d.Database, Table: d.Table, PK: d.PK, Context: d.Context, Created: d.Created, Notes: notes,
		Columns: make([]api.DatasetColumn, len(d.Columns)),
	}
	if d.DSNEnv != "" {
		out.Database += " (from the environment variable " + d.DSNEnv + ")"
	}
	for i, c := range d.Columns {
		out.Columns[i] = api.DatasetColumn{Column: c.Name, Key: c.Key, Type: c.Type, Foreign: c.Foreign}
	}
	return out
}

// variableName is what the name of an environment variable with a dataset's connection looks like.
var variableName = regexp.MustCompile(`^KEYTURN_DATASET_[A-Za-z0-9_]{1,100}$`)
