package runner

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	_ "modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// fakeStore keeps jobs in memory beside River's own tables in a real SQLite file.
type fakeStore struct {
	db *sql.DB

	mu       sync.Mutex // guards what follows, for the length of a transaction
	jobs     map[string]jobs.Job
	failures map[string][]jobs.Failure
}

func openFake(t *testing.T) *fakeStore {
	t.Helper()
	path := filepath.Join(t.TempDir(), "river.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	m, err := rivermigrate.New(riversqlite.New(db), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Migrate(t.Context(), rivermigrate.DirectionUp, nil); err != nil {
		t.Fatal(err)
	}
	return &fakeStore{db: db, jobs: map[string]jobs.Job{}, failures: map[string][]jobs.Failure{}}
}

func (f *fakeStore) View(_ context.Context, fn func(store.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fn(&fakeTx{f: f})
}

func (f *fakeStore) Change(ctx context.Context, fn func(store.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "beginning")
	}
	before := maps.Clone(f.jobs)
	if err := fn(&fakeTx{f: f, sql: tx}); err != nil {
		tx.Rollback()
		f.jobs = before
		return err
	}
	if err := tx.Commit(); err != nil {
		f.jobs = before
		return fault.Wrap(api.CodeUnavailable, err, "committing")
	}
	return nil
}

func (f *fakeStore) Append(context.Context, *audit.Segment) error { return nil }
func (f *fakeStore) ID() string                                   { return "fake" }
func (f *fakeStore) Dialect() store.Dialect                       { return store.SQLite }
func (f *fakeStore) DB() *sql.DB                                  { return f.db }
func (f *fakeStore) Durable(context.Context) error                { return nil }
func (f *fakeStore) Describe() string                             { return "fake" }
func (f *fakeStore) Close() error                                 { return f.db.Close() }

type fakeTx struct {
	store.Tx
	f   *fakeStore
	sql *sql.Tx
}

func (t *fakeTx) SQL() *sql.Tx { return t.sql }

func (t *fakeTx) InsertJob(_ context.Context, j jobs.Job) (jobs.Job, bool, error) {
	for _, o := range t.f.jobs {
		if j.UniqueKey != "" && o.UniqueKey == j.UniqueKey && !o.State.Final() {
			return o, false, nil
		}
	}
	t.f.jobs[j.ID] = j
	return j, true, nil
}

func (t *fakeTx) Job(_ context.Context, id string) (jobs.Job, error) {
	j, ok := t.f.jobs[id]
	if !ok {
		return j, fault.New(api.CodeNotFound, "no such job")
	}
	return j, nil
}

func (t *fakeTx) Jobs(_ context.Context, f jobs.Filter) (out []jobs.Job, _ error) {
	for _, j := range t.f.jobs {
		if slices.Contains(f.States, j.State) {
			out = append(out, j)
		}
	}
	return out, nil
}

func (t *fakeTx) Claim(_ context.Context, id string, epoch int64, owner string, now, until time.Time) (jobs.Job, error) {
	j, ok := t.f.jobs[id]
	if !ok || j.Epoch != epoch || (j.State != jobs.Queued && j.State != jobs.Running) {
		return j, jobs.ErrLost
	}
	j.Epoch, j.Owner, j.LeaseUntil, j.State = epoch+1, owner, until, jobs.Running
	if j.Started.IsZero() {
		j.Started = now
	}
	t.f.jobs[id] = j
	return j, nil
}

func (t *fakeTx) Renew(_ context.Context, id string, epoch int64, until time.Time) (jobs.Control, error) {
	j, ok := t.f.jobs[id]
	if !ok || j.Epoch != epoch || j.State != jobs.Running {
		return "", jobs.ErrLost
	}
	j.LeaseUntil = until
	t.f.jobs[id] = j
	return j.Control, nil
}

func (t *fakeTx) Save(_ context.Context, j jobs.Job) (jobs.Control, error) {
	old, ok := t.f.jobs[j.ID]
	if !ok || old.Epoch != j.Epoch {
		return "", jobs.ErrLost
	}
	j.Control = old.Control
	t.f.jobs[j.ID] = j
	return j.Control, nil
}

func (t *fakeTx) SetControl(ctx context.Context, id string, c jobs.Control) (jobs.Job, error) {
	j, err := t.Job(ctx, id)
	if err != nil {
		return j, err
	}
	j.Control = c
	t.f.jobs[id] = j
	return j, nil
}

func (t *fakeTx) Stale(_ context.Context, now time.Time, limit int) (out []jobs.Job, _ error) {
	due := func(j jobs.Job) time.Time {
		if j.State == jobs.Running {
			return j.LeaseUntil
		}
		return j.NextAttempt
	}
	for _, j := range t.f.jobs {
		if (j.State == jobs.Running || j.State == jobs.Queued) && !due(j).After(now) {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b jobs.Job) int { return cmp.Or(due(a).Compare(due(b)), cmp.Compare(a.ID, b.ID)) })
	return out[:min(limit, len(out))], nil
}

func (t *fakeTx) AddFailures(_ context.Context, id string, fs []jobs.Failure) error {
	t.f.failures[id] = append(t.f.failures[id], fs...)
	return nil
}

func (t *fakeTx) Failures(_ context.Context, id string, offset, limit int) ([]jobs.Failure, int64, error) {
	fs := t.f.failures[id]
	return fs[min(offset, len(fs)):min(offset+limit, len(fs))], int64(len(fs)), nil
}

func (t *fakeTx) ClearFailures(_ context.Context, id string, items []jobs.ItemColumn) error {
	t.f.failures[id] = slices.DeleteFunc(t.f.failures[id], func(f jobs.Failure) bool {
		return items == nil || slices.Contains(items, jobs.ItemColumn{Item: f.Item, Column: f.Column})
	})
	return nil
}
