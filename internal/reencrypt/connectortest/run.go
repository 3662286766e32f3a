package connectortest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Work describes a run over columns of a table, each under its own key, with the default context.
func Work(tb testing.TB, db reencrypt.Database, table string, columns map[string]*KeySet, kind reencrypt.Kind) reencrypt.Work {
	tb.Helper()
	w, err := TryWork(tb.Context(), db, table, columns, kind)
	if err != nil {
		tb.Fatalf("preparing work on %q: %v", table, err)
	}
	return w
}

// TryWork is Work where the database may fail.
func TryWork(ctx context.Context, db reencrypt.Database, table string, columns map[string]*KeySet, kind reencrypt.Kind) (w reencrypt.Work, err error) {
	t, err := db.Describe(ctx, table)
	if err != nil {
		return w, err
	}
	pk := t.PrimaryKey()
	d := datasets.Dataset{DSNEnv: "TEST", Table: table, PK: pk, Context: datasets.DefaultTemplate("", pk)}
	var names []string
	for _, c := range t.Columns {
		if keys, ok := columns[c.Name]; ok {
			names = append(names, c.Name)
			d.Columns = append(d.Columns, datasets.Column{Name: c.Name, KeyID: keys.ID()})
		}
	}
	if err := t.Check(pk, names); err != nil {
		return w, err
	}
	w = reencrypt.Work{Kind: kind, PK: pk}
	if w.Target, err = db.Target(ctx, t, pk, names); err != nil {
		return w, err
	}
	for _, name := range names {
		template, err := datasets.Compile(&d, name)
		if err != nil {
			return w, err
		}
		w.Columns = append(w.Columns, reencrypt.WorkColumn{Name: name, Context: template, Keys: columns[name]})
	}
	return w, nil
}

// Run is a run whose state is kept in memory, as a job's row would keep it.
type Run struct {
	mu     sync.Mutex
	State  reencrypt.State
	Failed []reencrypt.Failed
	Moved  map[reencrypt.VersionOf]int64
	Saves  int
}

// Save keeps what a run reports.
func (r *Run) Save(_ context.Context, s *reencrypt.State, p *reencrypt.Progress) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.State = *s
	r.Saves++
	if p == nil {
		return nil
	}
	r.Failed = append(r.Failed, p.Failed...)
	for v, rows := range p.Moved {
		if r.Moved == nil {
			r.Moved = map[reencrypt.VersionOf]int64{}
		}
		r.Moved[v] += rows
	}
	return nil
}

// Finish advances w from the saved state until it is done or fails.
func (r *Run) Finish(ctx context.Context, w reencrypt.Work) error {
	for {
		s := r.State
		done, err := w.Advance(ctx, &s, time.Now().Add(20*time.Second), r.Save)
		if done || err != nil {
			return err
		}
	}
}

// MustFinish is Finish for a run that succeeds; it answers what was done.
func MustFinish(tb testing.TB, w reencrypt.Work) reencrypt.Counts {
	tb.Helper()
	var r Run
	if err := r.Finish(tb.Context(), w); err != nil {
		tb.Fatalf("%s: %v (failed: %+v)", w.Kind, err, r.Failed)
	}
	return r.State.Counts
}
