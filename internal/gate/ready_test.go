package gate

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// A gate on a full disk isn't ready, and becomes ready by itself when there is room again, without a request that tries.
func TestNotReadyWhileNothingCanBeRecorded(t *testing.T) {
	full := false
	st := sqliteStore(t)().(*store.Database).Hooked(func(store.Op) error {
		if full {
			return &store.ProblemError{Problem: store.Full}
		}
		return nil
	})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := start(t, st, Config{Clock: func() time.Time { return now }})
	if err := g.Ready(); err != nil {
		t.Fatal(err)
	}
	full = true
	if err := use(g, "1"); err == nil {
		t.Fatal("an operation was answered without its event")
	}
	for range 3 {
		if err := g.Ready(); fault.CodeOf(err) != api.CodeUnavailable || fault.NextOf(err) == "" {
			t.Errorf("on a full disk: %v", err)
		}
		now = now.Add(2 * time.Second)
	}
	full = false
	if err := g.Ready(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := use(g, "2"); err != nil || g.Ready() != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A gate whose store is away isn't ready, although nobody has sent it a request, and is ready again by itself.
func TestNotReadyWhileTheStoreIsAway(t *testing.T) {
	away := false
	st := sqliteStore(t)().(*store.Database).Hooked(func(store.Op) error {
		if away {
			return &store.ProblemError{Problem: store.Gone}
		}
		return nil
	})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := start(t, st, Config{Clock: func() time.Time { return now }})
	if err := g.Ready(); err != nil {
		t.Fatal(err)
	}
	away = true
	now = now.Add(2 * time.Second)
	for range 3 { // the first asks the store, the others remember
		if err := g.Ready(); fault.CodeOf(err) != api.CodeUnavailable || fault.NextOf(err) == "" {
			t.Errorf("without its store: %v", err)
		}
	}
	away = false
	now = now.Add(2 * time.Second)
	if err := g.Ready(); err != nil {
		t.Errorf("with its store again: %v", err)
	}
}
