package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// op is one operation of the scenario that the sweeps below run again and again.
type op struct {
	id  string
	run func(g *Gate, id string) error
}

func scenario(prefix string) (ops []op) {
	for i := range 2 {
		ops = append(ops, op{fmt.Sprint(prefix, "use", i), use}, op{fmt.Sprint(prefix, "change", i), setMeta})
	}
	return append(ops, op{prefix + "denied", func(g *Gate, id string) error {
		c := owner(id)
		c.Principal = nil
		return g.Use(context.Background(), c, encrypt, nothing)
	}})
}

// checkAnswers compares what was answered with what is in the store when it is opened anew: promise P2. Every answer has
// its event, every change and its success event are there together or not at all, and what was refused as unrecorded
// changed nothing unless the answer said that nobody knows.
func checkAnswers(t *testing.T, what string, answers map[string]error, st store.Store) {
	t.Helper()
	g := start(t, st, Config{})
	lines := query(t, g, Filter{})
	for id, err := range answers {
		events := byRequest(lines, id)
		succeeded := slices.ContainsFunc(events, func(l line) bool { return l.Success })
		switch {
		case err == nil && !succeeded:
			t.Errorf("%s: %s was answered and has no event", what, id)
		case fault.CodeOf(err) == api.CodeDenied && len(events) == 0:
			t.Errorf("%s: %s was denied and has no event", what, id)
		case err != nil && fault.CodeOf(err) != api.CodeDenied && fault.CodeOf(err) != api.CodeUnavailable && len(events) == 0:
			t.Errorf("%s: %s failed (%v) and has no event", what, id, err)
		}
		if len(events) > 1 {
			t.Errorf("%s: %s has %d events", what, id, len(events))
		}
		if contains(id, "change") {
			if hasMeta(t, st, id) != succeeded {
				t.Errorf("%s: %s (%v): the change is there: %v, its event: %v", what, id, err, hasMeta(t, st, id), succeeded)
			}
			if err != nil && !errors.Is(err, store.ErrCommitUnknown) && hasMeta(t, st, id) {
				t.Errorf("%s: %s happened though it was refused: %v", what, id, err)
			}
		}
	}
	mustVerify(t, g)
	if err := g.Close(context.Background()); err != nil {
		t.Errorf("%s: closing: %v", what, err)
	}
}

// TestP2_EveryOperationOfTheStoreFailsOnce is row 2 of the fault list for the gate: the n-th begin, statement, commit or
// append fails, with every kind of failure, for every n until the scenario runs through.
func TestP2_EveryOperationOfTheStoreFailsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		runs, st := 0, open()
		for _, problem := range []store.Problem{store.Full, store.Busy, store.Gone, store.Collision} {
			for n := 1; ; n++ {
				what := fmt.Sprintf("problem %v at operation %d", problem, n)
				count, hit, armed := 0, false, false
				hooked := st.(*store.Database).Hooked(func(at store.Op) error {
					if !armed || at == store.OpCommitted && problem != store.Gone {
						return nil // only a lost connection can fail after the commit
					}
					if count++; count == n {
						hit = true
						return &store.ProblemError{Problem: problem}
					}
					return nil
				})
				g := start(t, hooked, Config{})
				armed = true
				answers := map[string]error{}
				for _, o := range scenario(fmt.Sprint("run", runs, ".")) {
					answers[o.id] = o.run(g, o.id)
				}
				armed = false
				runs++
				checkAnswers(t, what, answers, st)
				if t.Failed() || !hit {
					break
				}
			}
		}
		t.Logf("%d runs, every operation of the scenario failed once in every way", runs)
	})
}

// TestP2_AppendFails: the n-th append and every later one fail, as on a full disk, then the disk has room again.
func TestP2_AppendFails(t *testing.T) {
	for n := 1; n <= 5; n++ {
		st := &tampered{Store: sqliteStore(t)()}
		g := start(t, st, Config{})
		left := n
		failing := func(*audit.Segment) error {
			if left--; left <= 0 {
				return errDisk
			}
			return nil
		}
		st.hooks(failing, nil)
		answers := map[string]error{}
		ops := scenario("")
		for _, o := range ops {
			answers[o.id] = o.run(g, o.id)
		}
		refused := 0
		for i, o := range ops {
			if fault.CodeOf(answers[o.id]) == api.CodeUnavailable {
				refused++
			} else if i >= n {
				t.Errorf("n=%d: %s was answered without a record: %v", n, o.id, answers[o.id])
			}
		}
		if refused == 0 {
			t.Errorf("n=%d: nothing was refused", n)
		}
		st.hooks(nil, nil)
		answers["again"] = use(g, "again")
		if answers["again"] != nil {
			t.Errorf("n=%d: after the disk has room: %v", n, answers["again"])
		}
		checkAnswers(t, fmt.Sprint("n=", n), answers, st)
	}
}

// TestAmbiguousCommits: the answer of a commit is lost. Whether it arrived before, arrives later, or never, everybody
// gets a true answer and the log stays whole.
func TestAmbiguousCommits(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := &tampered{Store: open()}
		g := start(t, st, Config{})
		answers := map[string]error{}
		run := func(id string, f func(*Gate, string) error) error {
			answers[id] = f(g, id)
			return answers[id]
		}

		st.hooks(nil, once(errUnknown)) // it had arrived
		if err := run("use-arrived", use); err != nil {
			t.Errorf("an append that arrived: %v", err)
		}
		st.hooks(nil, once(errUnknown))
		if err := run("change-arrived", setMeta); err != nil {
			t.Errorf("a change that arrived: %v", err)
		}
		st.hooks(once(errUnknown), nil) // it never arrives
		if err := run("use-lost", use); fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("an append that was lost: %v", err)
		}
		if err := run("use-next", use); err != nil {
			t.Errorf("after a lost append: %v", err)
		}

		// In flight: the answer says nothing, the head is still the old one, and the segment lands just before the next.
		var late *audit.Segment
		st.hooks(func(s *audit.Segment) error {
			if s == nil || late != nil {
				return nil
			}
			kept := copied(s)
			late = &kept
			return errUnknown
		}, nil)
		if err := run("use-late", use); fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("an append in flight: %v", err)
		}
		st.hooks(func(*audit.Segment) error {
			if s := late; s != nil {
				late = nil
				return st.Store.Append(context.Background(), s)
			}
			return nil
		}, nil)
		if err := run("use-behind", use); err != nil {
			t.Errorf("after an append that arrived late: %v", err)
		}
		st.hooks(nil, nil)
		if n := len(byRequest(query(t, g, Filter{}), "use-late")); n != 1 {
			t.Errorf("the late event is there %d times", n)
		}
		delete(answers, "use-late") // refused and recorded: the safe side
		checkAnswers(t, "ambiguous commits", answers, st)
	})
}

// TestAmbiguousChanges: as above for a transaction, whose answer must be definite unless the store stays away.
func TestAmbiguousChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := &changing{Store: open()}
		g := start(t, st, Config{})
		answers := map[string]error{}

		st.mode = lose
		answers["change-lost"] = setMeta(g, "change-lost")
		if err := answers["change-lost"]; fault.CodeOf(err) != api.CodeUnavailable || errors.Is(err, store.ErrCommitUnknown) {
			t.Errorf("a change that was lost: %v", err)
		}
		st.mode = delay
		answers["change-late"] = setMeta(g, "change-late")
		if err := answers["change-late"]; err != nil {
			t.Errorf("a change that arrived while its failure was being recorded: %v", err)
		}
		answers["after"] = setMeta(g, "after")
		if answers["after"] != nil {
			t.Errorf("after it: %v", answers["after"])
		}
		st.mode = vanish
		answers["change-unknown"] = setMeta(g, "change-unknown")
		if err := answers["change-unknown"]; fault.CodeOf(err) != api.CodeUnavailable || !errors.Is(err, store.ErrCommitUnknown) {
			t.Errorf("a change whose store went away: %v", err)
		}
		if err := use(g, "while-away"); fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("a use while the store is away: %v", err)
		}
		st.mode = ""
		answers["back"] = use(g, "back")
		if answers["back"] != nil {
			t.Errorf("when the store is back: %v", answers["back"])
		}
		checkAnswers(t, "ambiguous changes", answers, st)
	})
}

// changing is a store whose next Change has no answer.
type changing struct {
	store.Store
	mode    string
	pending func() error
}

const (
	lose   = "lose"   // nothing happens
	delay  = "delay"  // it happens just before the next append
	vanish = "vanish" // it happens, and then nothing can be read or written
)

func (s *changing) Change(ctx context.Context, fn func(store.Tx) error) error {
	switch s.mode {
	case lose:
		s.mode = ""
		rolledBack := errors.New("undo")
		if err := s.Store.Change(ctx, func(tx store.Tx) error { return errors.Join(fn(tx), rolledBack) }); !errors.Is(err, rolledBack) {
			return err
		}
		return errUnknown
	case delay:
		s.mode = ""
		rolledBack := errors.New("undo")
		_ = s.Store.Change(ctx, func(tx store.Tx) error { return errors.Join(fn(&recording{Tx: tx, s: s}), rolledBack) })
		return errUnknown
	case vanish:
		if err := s.Store.Change(ctx, fn); err != nil {
			return err
		}
		return errUnknown
	}
	return s.Store.Change(ctx, fn)
}

func (s *changing) View(ctx context.Context, fn func(store.Tx) error) error {
	if s.mode == vanish {
		return errDisk
	}
	return s.Store.View(ctx, fn)
}

func (s *changing) Append(ctx context.Context, g *audit.Segment) error {
	if s.mode == vanish {
		return errDisk
	}
	if p := s.pending; p != nil {
		s.pending = nil
		if err := p(); err != nil {
			return err
		}
	}
	return s.Store.Append(ctx, g)
}

// recording remembers what a transaction wrote, to write it later.
type recording struct {
	store.Tx
	s          *changing
	key, value string
}

func (r *recording) SetMeta(ctx context.Context, key, value string) error {
	r.key, r.value = key, value
	return r.Tx.SetMeta(ctx, key, value)
}

func (r *recording) AppendSegment(ctx context.Context, g *audit.Segment) error {
	kept := copied(g)
	r.s.pending = func() error {
		return r.s.Store.Change(context.Background(), func(tx store.Tx) error {
			return errors.Join(tx.SetMeta(context.Background(), r.key, r.value), tx.AppendSegment(context.Background(), &kept))
		})
	}
	return r.Tx.AppendSegment(ctx, g)
}
