package gate

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
)

// pair is one node on a shared store, and the store as another node has it open.
type pair struct {
	t     *testing.T
	gate  *Gate
	other store.Store

	mu       sync.Mutex
	outdated []envelope.KeyID // guarded by mu
}

func newPair(t *testing.T) *pair {
	url := pgtest.Start(t).Database(t)
	open := opener(t, func(ctx context.Context) (store.Store, error) { return postgres.Open(ctx, url, postgres.Config{}) })
	p := &pair{t: t, other: open()}
	p.gate = start(t, open(), Config{Outdated: func(id envelope.KeyID) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.outdated = append(p.outdated, id)
	}})
	return p
}

// key makes a key, at revision 1.
func (p *pair) key(name string) keys.Key {
	p.t.Helper()
	k := keys.Key{ID: envelope.NewKeyID(), Name: name, Purpose: "data", Algorithm: "AES-256", Suite: 1, Created: time.Unix(1, 0), Revision: 1}
	if err := p.other.Change(p.t.Context(), func(tx store.Tx) error { return tx.CreateKey(p.t.Context(), k) }); err != nil {
		p.t.Fatal(err)
	}
	return k
}

// change is what another node does to a key.
func (p *pair) change(k *keys.Key) {
	p.t.Helper()
	if err := p.other.Change(p.t.Context(), func(tx store.Tx) error { return tx.UpdateKey(p.t.Context(), *k) }); err != nil {
		p.t.Fatal(err)
	}
	k.Revision++
}

// TestOperationsRunAgainWhenTheirKeyChanged: an operation that chose its version before another node changed the key, and
// would be recorded after it, is not: it runs again on what is true now, with a fresh event, and is recorded once.
func TestOperationsRunAgainWhenTheirKeyChanged(t *testing.T) {
	p := newPair(t)
	k := p.key("phi")
	runs := 0
	err := p.gate.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, ev *audit.Event) error {
		runs++
		ev.KeyVersion += uint32(k.Revision)
		RestsOn(ctx, k.ID, k.Revision)
		if runs == 1 {
			p.change(&k)
		}
		return nil
	})
	if err != nil || runs != 2 || len(p.outdated) != 1 || p.outdated[0] != k.ID {
		t.Fatalf("%v after %d runs, %d keys dropped", err, runs, len(p.outdated))
	}
	lines := query(t, p.gate, Filter{})
	if len(lines) != 1 || lines[0].Version != 2 || !lines[0].Success {
		t.Fatalf("recorded: %+v", lines)
	}
	mustVerify(t, p.gate)
}

// Failures rest on what was read as well: a refusal that isn't true any more is not given.
func TestRefusalsRunAgainToo(t *testing.T) {
	p := newPair(t)
	k := p.key("phi")
	suspended := true
	err := p.gate.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, _ *audit.Event) error {
		RestsOn(ctx, k.ID, k.Revision)
		if suspended {
			suspended = false
			p.change(&k)
			return fault.New(api.CodeWrongState, "the key is suspended")
		}
		return nil
	})
	if lines := query(t, p.gate, Filter{}); err != nil || len(lines) != 1 || !lines[0].Success {
		t.Fatalf("%v, %+v", err, lines)
	}
}

// TestNeighboursDontRunAgain: in one segment only those whose own key changed are done again.
func TestNeighboursDontRunAgain(t *testing.T) {
	p := newPair(t)
	moved, still := p.key("moved"), p.key("still")
	p.gate.turn <- struct{}{} // so that all gather in one segment
	old := moved
	p.change(&moved)
	const each = 5
	var mu sync.Mutex
	runs := map[string]int{}
	var all sync.WaitGroup
	for i := range 2 * each {
		k := []keys.Key{old, still}[i%2]
		all.Go(func() {
			id := fmt.Sprintf("%s-%d", k.Name, i)
			err := p.gate.Use(context.Background(), owner(id), encrypt, func(ctx context.Context, _ *audit.Event) error {
				mu.Lock()
				defer mu.Unlock()
				if runs[id]++; runs[id] > 1 {
					k = moved
				}
				RestsOn(ctx, k.ID, k.Revision)
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	eventually(t, "all gather", func() bool {
		p.gate.mu.Lock()
		defer p.gate.mu.Unlock()
		return p.gate.open != nil && len(p.gate.open.leaves) == 2*each
	})
	<-p.gate.turn
	all.Wait()
	for id, n := range runs {
		if want := map[bool]int{true: 2, false: 1}[contains(id, "moved")]; n != want {
			t.Errorf("%s ran %d times", id, n)
		}
	}
	if lines := query(t, p.gate, Filter{}); len(lines) != 2*each {
		t.Errorf("%d events", len(lines))
	}
	mustVerify(t, p.gate)
}

// A key that changes faster than an operation can be recorded ends in "busy", recorded as a failure; nothing waits for ever.
func TestAKeyThatNeverStandsStill(t *testing.T) {
	p := newPair(t)
	k := p.key("phi")
	runs := 0
	err := p.gate.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, _ *audit.Event) error {
		runs++
		RestsOn(ctx, k.ID, k.Revision)
		p.change(&k)
		return nil
	})
	lines := query(t, p.gate, Filter{})
	if fault.CodeOf(err) != api.CodeBusy || runs != maxRuns || len(lines) != 1 || lines[0].Success || lines[0].Details.Code != "busy" {
		t.Fatalf("%v after %d runs: %+v", err, runs, lines)
	}
	if err := p.gate.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// A key that nobody knows any more is a premise that doesn't hold; it can't be made to hold either.
func TestAPremiseOfNothing(t *testing.T) {
	p := newPair(t)
	err := p.gate.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, _ *audit.Event) error {
		RestsOn(ctx, envelope.NewKeyID(), 1)
		return nil
	})
	if fault.CodeOf(err) != api.CodeBusy {
		t.Fatal(err)
	}
}

// TestPremisesSurviveAmbiguousCommits: when nobody knows whether a segment arrived, and it did, its operations are answered
// even if their key changed a moment later: they were recorded before.
func TestPremisesSurviveAmbiguousCommits(t *testing.T) {
	p := newPair(t)
	k := p.key("phi")
	armed := false
	st := p.gate.st.(*store.Database)
	p.gate.st = st.Hooked(func(at store.Op) error {
		if at == store.OpCommitted && armed {
			armed = false
			p.change(&k)
			return &store.ProblemError{Problem: store.Gone}
		}
		return nil
	})
	runs := 0
	err := p.gate.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, _ *audit.Event) error {
		runs++
		RestsOn(ctx, k.ID, k.Revision)
		armed = true
		return nil
	})
	if err != nil || runs != 1 {
		t.Fatalf("%v after %d runs", err, runs)
	}
}

// Where one process has the store for itself nothing rests on anything: no premise is kept, and nothing runs twice.
func TestAloneNothingRunsAgain(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{})
	runs := 0
	err := g.Use(t.Context(), owner("one"), encrypt, func(ctx context.Context, _ *audit.Event) error {
		runs++
		RestsOn(ctx, envelope.NewKeyID(), 1)
		return nil
	})
	if err != nil || runs != 1 {
		t.Fatalf("%v after %d runs", err, runs)
	}
}
