package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

func TestUseRecordsWhoWhatAndHow(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		now := time.Date(2026, 1, 15, 10, 30, 45, 123456789, time.UTC)
		g := start(t, open(), Config{Clock: func() time.Time { return now }, Environment: "test"})
		in := encrypt
		in.Reason = "because"
		err := g.Use(t.Context(), owner("r1"), in, func(_ context.Context, ev *audit.Event) error {
			ev.KeyVersion = 4
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := setMeta(g, "r2"); err != nil {
			t.Fatal(err)
		}
		if err := g.Record(t.Context(), &audit.Event{Type: audit.AuthFailure, Action: "refused", UserID: "anonymous", Resource: "system", RequestID: "r3"}); err != nil {
			t.Fatal(err)
		}
		got := query(t, g, Filter{})
		if len(got) != 3 {
			t.Fatalf("%d events", len(got))
		}
		want := fmt.Sprintf(`{"timestamp":"2026-01-15T10:30:45.123456Z","event_type":"key_use","action":"encrypt","success":true,"user_id":"alice",`+
			`"role":"owner","resource":"key/phi","key_version":4,"reason":"because","request_id":"r1","source_ip":"10.0.0.7","details":{"method":"token"},`+
			`"process_id":%d,"environment":"test","shard":0,"index":0}`, os.Getpid())
		if got[0].raw != want {
			t.Errorf("got\n%s\nwant\n%s", got[0].raw, want)
		}
		if r := got[1]; !r.Success || r.Action != "rotated" || r.Details.NewVersion != 2 || r.Index != 1 {
			t.Errorf("the change's event: %s", r.raw)
		}
		if r := got[2]; r.Success || r.Type != "auth_failure" || r.Time != "2026-01-15T10:30:45.123456Z" || r.Environment != "test" || r.Index != 2 {
			t.Errorf("the recorded event: %s", r.raw)
		}
		mustVerify(t, g)
	})
}

// TestP2_DenialsAreRecordedAndNothingRuns: a denial leaves its event and does no work.
func TestP2_DenialsAreRecordedAndNothingRuns(t *testing.T) {
	st := sqliteStore(t)()
	g := start(t, st, Config{})
	auditor := owner("denied-use")
	auditor.Principal = &access.Principal{Name: "eve", Role: access.RoleAuditor, Scope: []string{"*"}}
	ran := false
	err := g.Use(t.Context(), auditor, encrypt, func(context.Context, *audit.Event) error { ran = true; return nil })
	if fault.CodeOf(err) != api.CodeDenied || ran {
		t.Errorf("an auditor encrypts: %v, ran %v", err, ran)
	}
	auditor.RequestID = "denied-change"
	err = g.Change(t.Context(), auditor, encrypt, func(context.Context, store.Tx, *audit.Event) error { ran = true; return nil })
	if fault.CodeOf(err) != api.CodeDenied || ran {
		t.Errorf("an auditor changes: %v, ran %v", err, ran)
	}
	for _, nobody := range []*access.Caller{nil, {RequestID: "nobody"}} {
		if err := g.Use(t.Context(), nobody, encrypt, nothing); fault.CodeOf(err) != api.CodeDenied {
			t.Errorf("nobody encrypts: %v", err)
		}
	}
	got := query(t, g, Filter{Type: audit.PermissionDenied, Failed: true})
	if len(got) != 4 || got[0].User != "eve" || got[0].RequestID != "denied-use" || got[0].Action != "encrypt" || got[0].Details.Code != "denied" ||
		got[1].RequestID != "denied-change" || got[2].User != "anonymous" || got[3].User != "anonymous" {
		t.Errorf("recorded: %+v", got)
	}
}

func TestFailuresAndPanicsAreRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := open()
		g := start(t, st, Config{})
		bad := fault.New(api.CodeIntegrity, "unwrapping").WithField("ciphertext")
		if err := g.Use(t.Context(), owner("u1"), encrypt, func(context.Context, *audit.Event) error { return bad }); err != error(bad) {
			t.Errorf("the work's error comes back as %v", err)
		}
		if err := g.Use(t.Context(), owner("u2"), encrypt, func(context.Context, *audit.Event) error { panic("canary-hunter2") }); fault.CodeOf(err) != api.CodeInternal {
			t.Errorf("a panic comes back as %v", err)
		}
		change := func(id string, fn ChangeFunc) error { return g.Change(t.Context(), owner(id), encrypt, fn) }
		err := change("c1", func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
			ev.KeyVersion = 7
			return errors.Join(tx.SetMeta(ctx, "test.c1", "c1"), bad)
		})
		if !errors.Is(err, bad) {
			t.Errorf("the change's error comes back as %v", err)
		}
		err = change("c2", func(ctx context.Context, tx store.Tx, _ *audit.Event) error {
			if err := tx.SetMeta(ctx, "test.c2", "c2"); err != nil {
				return err
			}
			panic("canary-hunter2")
		})
		if fault.CodeOf(err) != api.CodeInternal {
			t.Errorf("a panic in a change comes back as %v", err)
		}
		for id, code := range map[string]string{"u1": "integrity", "u2": "internal", "c1": "integrity", "c2": "internal"} {
			got := byRequest(query(t, g, Filter{Failed: true}), id)
			if len(got) != 1 || got[0].Details.Code != code || got[0].Version != 0 {
				t.Errorf("%s: %+v", id, got)
			}
		}
		if got := byRequest(query(t, g, Filter{}), "u1"); got[0].Details.Field != "ciphertext" {
			t.Errorf("the field is lost: %s", got[0].raw)
		}
		if hasMeta(t, st, "c1") || hasMeta(t, st, "c2") {
			t.Error("a failed change left something behind")
		}
		if err := use(g, "after"); err != nil {
			t.Errorf("after a panic: %v", err)
		}
		mustVerify(t, g)
	})
}

// TestUseRecordsWhatTheClientDidNotWaitFor: the client goes away while its operation runs, and while it waits to be
// recorded. It is recorded both times, and the others in its segment don't notice.
func TestUseRecordsWhatTheClientDidNotWaitFor(t *testing.T) {
	st := &tampered{Store: sqliteStore(t)()}
	g := start(t, st, Config{})
	ctx, leave := context.WithCancel(t.Context())
	err := g.Use(ctx, owner("gone"), encrypt, func(context.Context, *audit.Event) error {
		leave()
		return nil
	})
	if err != nil || len(byRequest(query(t, g, Filter{}), "gone")) != 1 {
		t.Errorf("recorded %d times: %v", len(byRequest(query(t, g, Filter{}), "gone")), err)
	}
	ran := false
	err = g.Use(ctx, owner("never"), encrypt, func(context.Context, *audit.Event) error { ran = true; return nil })
	if fault.CodeOf(err) != api.CodeCancelled || ran {
		t.Errorf("a client that was gone before: %v", err)
	}

	// While one commit is under way, a batch gathers behind it; one of its callers leaves.
	under, release := make(chan struct{}), make(chan struct{})
	var first sync.Once
	st.hooks(func(*audit.Segment) error {
		first.Do(func() { close(under); <-release })
		return nil
	}, nil)
	var all sync.WaitGroup
	all.Go(func() {
		if err := use(g, "first"); err != nil {
			t.Errorf("first: %v", err)
		}
	})
	<-under
	ctx, leave = context.WithCancel(t.Context())
	for i := range 20 {
		all.Go(func() {
			if err := g.Use(ctx, owner(fmt.Sprintf("b%d", i)), encrypt, nothing); err != nil {
				t.Errorf("b%d: %v", i, err)
			}
		})
	}
	eventually(t, "twenty wait together", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.open != nil && len(g.open.leaves) == 20
	})
	// A change that is cancelled while it waits for its turn does nothing.
	impatient, cancel := context.WithCancel(t.Context())
	all.Go(func() {
		err := g.Change(impatient, owner("change"), encrypt, func(ctx context.Context, tx store.Tx, _ *audit.Event) error {
			return tx.SetMeta(ctx, "test.change", "change")
		})
		if fault.CodeOf(err) != api.CodeCancelled {
			t.Errorf("a cancelled change: %v", err)
		}
	})
	cancel()
	leave()
	close(release)
	all.Wait()
	lines := query(t, g, Filter{})
	for i := range 20 {
		if n := len(byRequest(lines, fmt.Sprintf("b%d", i))); n != 1 {
			t.Errorf("b%d is recorded %d times", i, n)
		}
	}
	if hasMeta(t, st, "change") {
		t.Error("the cancelled change happened")
	}
	mustVerify(t, g)
}

func TestNestedCallsAreRefusedInsteadOfHanging(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{})
	err := g.Change(t.Context(), owner("outer"), encrypt, func(ctx context.Context, _ store.Tx, _ *audit.Event) error {
		return g.Use(ctx, owner("inner"), encrypt, nothing)
	})
	if fault.CodeOf(err) != api.CodeInternal || !contains(err.Error(), "inside a change") {
		t.Errorf("a use inside a change: %v", err)
	}
}

func TestBadIntentsAreRefused(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{})
	in := encrypt
	in.Reason = strings.Repeat("x", MaxReason+1)
	if err := g.Use(t.Context(), owner("long"), in, nothing); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "reason" {
		t.Errorf("a long reason: %v", err)
	}
	err := g.Use(t.Context(), owner("huge"), encrypt, func(_ context.Context, ev *audit.Event) error {
		ev.Details.Label = strings.Repeat("x", maxLine)
		return nil
	})
	if fault.CodeOf(err) != api.CodeTooLarge {
		t.Errorf("a huge event: %v", err)
	}
	if err := use(g, strings.Repeat("r", 1000)); err != nil {
		t.Error(err)
	}
	if got := query(t, g, Filter{}); len(got) != 1 || len(got[0].RequestID) != maxRequestID {
		t.Errorf("a long request id: %v", got)
	}
}

func TestGateIsClosedBeforeStartAndAfterClose(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	st := sqliteStore(t)()
	g := build(t, st, Config{CheckpointEvery: time.Millisecond})
	refuses := func(when string) {
		t.Helper()
		ran := false
		errs := []error{
			g.Use(t.Context(), owner("x"), encrypt, func(context.Context, *audit.Event) error { ran = true; return nil }),
			g.Change(t.Context(), owner("x"), encrypt, func(context.Context, store.Tx, *audit.Event) error { ran = true; return nil }),
			g.Record(t.Context(), &audit.Event{}), g.Err(),
		}
		for i, err := range errs {
			if fault.CodeOf(err) != api.CodeUnavailable || ran {
				t.Errorf("%s, call %d: %v, ran %v", when, i, err, ran)
			}
		}
	}
	refuses("before Start")
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := use(g, "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refuses("after Close")
	again := start(t, st, Config{})
	if r := mustVerify(t, again); r.Events != 1 {
		t.Errorf("%d events after opening again", r.Events)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNewRefusesAnotherStoresKey(t *testing.T) {
	st := sqliteStore(t)()
	signer, key := keyOf(t, "another")
	ours, _ := keyOf(t, st.ID())
	for name, c := range map[string]struct {
		signer audit.Signer
		key    *audit.Key
	}{"both": {signer, key}, "the public one": {ours, key}, "none": {ours, nil}, "no signer": {nil, key}} {
		if _, err := New(Config{Key: c.key}, st, c.signer); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
}
