package storetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
)

// Kind is how an operation of the store fails.
type Kind int

// The kinds of failures (row 2 of the fault campaigns).
const (
	DiskError   Kind = iota // the operation reports an I/O error and isn't done; the store writes nothing more
	Cancelled               // the caller's context ends during the operation
	Conflict                // the database sees a collision: Change rolls back and runs the function again
	AfterCommit             // the commit happens, and its answer gets lost
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{DiskError, Cancelled, Conflict, AfterCommit} }

// String names the kind in test names and reports.
func (k Kind) String() string {
	return [...]string{"disk error", "cancelled", "conflict", "answer lost after the commit"}[k]
}

// fails says whether a kind can strike at a moment.
func (k Kind) fails(op store.Op) bool {
	switch k {
	case AfterCommit:
		return op == store.OpCommitted
	case Conflict:
		return op == store.OpStatement || op == store.OpCommit
	}
	return op != store.OpCommitted
}

// error is what the operation ends with.
func (k Kind) error() error {
	switch k {
	case DiskError:
		return &store.ProblemError{Problem: store.DiskError}
	case Cancelled:
		return context.Canceled
	case Conflict:
		return &store.ProblemError{Problem: store.Collision}
	}
	return context.DeadlineExceeded
}

// Plan lets the N-th operation that its Kind can strike fail, counted over all stores that share the plan, and no other.
type Plan struct {
	Kind Kind
	N    int64 // from 1

	seen atomic.Int64
}

// Hit says whether there was an N-th operation.
func (p *Plan) Hit() bool { return p.seen.Load() >= p.N }

// Faulty is a handle on st under the plan: the same database, the same contract, one failure. st itself stays sound, for
// looking at what is left. Closing the handle isn't needed.
func Faulty(st store.Store, p *Plan) store.Store {
	hookable, ok := st.(interface {
		Hooked(func(store.Op) error) *store.Database
	})
	if !ok {
		panic(fmt.Sprintf("storetest: a %T takes no hook", st))
	}
	return hookable.Hooked(func(op store.Op) error {
		if p.Kind.fails(op) && p.seen.Add(1) == p.N {
			return p.Kind.error()
		}
		return nil
	})
}

// Sweep runs a scenario with its first, second, third… operation failing, in every kind, until the scenario ends without
// having met the failure. The scenario wraps its store with Faulty, expects some step to fail, and checks its invariants
// with the sound store. Each run needs names of its own or a fresh store.
func Sweep(t *testing.T, scenario func(t *testing.T, p *Plan)) {
	for _, kind := range Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			for n := int64(1); ; n++ {
				p := &Plan{Kind: kind, N: n}
				scenario(t, p)
				if t.Failed() {
					t.Fatalf("failure number %d", n)
				}
				if !p.Hit() {
					if n == 1 {
						t.Error("the scenario has no operation that can fail")
					}
					t.Logf("%d operations failed one after another, 0 invariants broken", n-1)
					return
				}
			}
		})
	}
}
