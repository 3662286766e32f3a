package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// onBoth runs a test on an empty SQLite and on an empty PostgreSQL store.
func onBoth(t *testing.T, run func(t *testing.T, open func() store.Store)) {
	t.Run("sqlite", func(t *testing.T) { run(t, sqliteStore(t)) })
	t.Run("postgres", func(t *testing.T) {
		url := pgtest.Start(t).Database(t)
		run(t, opener(t, func(ctx context.Context) (store.Store, error) { return postgres.Open(ctx, url, postgres.Config{}) }))
	})
}

func sqliteStore(t testing.TB) func() store.Store {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	return opener(t, func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) })
}

func sqliteAt(t testing.TB, path string) store.Store {
	return opener(t, func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) })()
}

func opener(t testing.TB, open func(context.Context) (store.Store, error)) func() store.Store {
	return func() store.Store {
		st, err := open(context.Background())
		if err != nil {
			t.Fatalf("opening the store: %v", err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return st
	}
}

// keyOf makes a store's signing key, the same in every call.
func keyOf(t testing.TB, storeID string) (audit.Signer, *audit.Key) {
	t.Helper()
	seed := sha256.Sum256([]byte(storeID))
	secret, public, err := audit.GenerateKey(bytes.NewReader(bytes.Repeat(seed[:], 8)), storeID)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := audit.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// start opens a gate over a store; without background checkpoints unless cfg says so.
func start(t testing.TB, st store.Store, cfg Config) *Gate {
	t.Helper()
	g := build(t, st, cfg)
	if err := g.Start(context.Background()); err != nil {
		t.Fatalf("starting the gate: %v", err)
	}
	return g
}

func build(t testing.TB, st store.Store, cfg Config) *Gate {
	t.Helper()
	signer, key := keyOf(t, st.ID())
	cfg.Key = key
	if cfg.CheckpointEvery == 0 {
		cfg.CheckpointEvery = -1
	}
	g, err := New(cfg, st, signer)
	if err != nil {
		t.Fatalf("making the gate: %v", err)
	}
	t.Cleanup(func() { _ = g.Close(context.Background()) })
	return g
}

func owner(requestID string) *access.Caller {
	return &access.Caller{Method: "token", SourceIP: "10.0.0.7", RequestID: requestID,
		Principal: &access.Principal{ID: "p1", Name: "alice", Role: access.RoleOwner, Scope: []string{"*"}}}
}

var encrypt = Intent{Action: access.KeyEncrypt, Type: audit.KeyUse, Verb: "encrypt", Resource: access.Resource{Kind: access.KindKey, Name: "phi"}}

func nothing(context.Context, *audit.Event) error { return nil }

// use is a Use of nothing with a request id.
func use(g *Gate, id string) error { return g.Use(context.Background(), owner(id), encrypt, nothing) }

// setMeta is a Change that leaves a trace beside its event.
func setMeta(g *Gate, id string) error {
	in := Intent{Action: access.KeyRotate, Type: audit.KeyRotation, Verb: "rotated", Resource: access.Resource{Kind: access.KindKey, Name: "phi"}}
	return g.Change(context.Background(), owner(id), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.NewVersion = 2
		return tx.SetMeta(ctx, "test."+id, id)
	})
}

func hasMeta(t testing.TB, st store.Store, id string) bool {
	t.Helper()
	var got string
	err := st.View(context.Background(), func(tx store.Tx) (err error) {
		got, err = tx.Meta(context.Background(), "test."+id)
		return err
	})
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		t.Fatal(err)
	}
	return got == id
}

// line is what tests look at in an event.
type line struct {
	Time      string `json:"timestamp"`
	Type      string `json:"event_type"`
	Action    string `json:"action"`
	Success   bool   `json:"success"`
	User      string `json:"user_id"`
	Role      string `json:"role"`
	Resource  string `json:"resource"`
	Version   uint32 `json:"key_version"`
	Reason    string `json:"reason"`
	RequestID string `json:"request_id"`
	Source    string `json:"source_ip"`
	Details   struct {
		Code, Field, Method string
		NewVersion          uint32 `json:"new_version"`
	} `json:"details"`
	Process     int    `json:"process_id"`
	Environment string `json:"environment"`
	Shard       int    `json:"shard"`
	Index       uint64 `json:"index"`

	raw string
}

func query(t testing.TB, g *Gate, f Filter) []line {
	t.Helper()
	var out []line
	err := g.Query(context.Background(), f, func(raw []byte) error {
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Errorf("the line is not JSON: %s", raw)
		}
		l.raw = string(raw)
		out = append(out, l)
		return nil
	})
	if err != nil {
		t.Fatalf("querying %+v: %v", f, err)
	}
	return out
}

// byRequest finds the events of a request.
func byRequest(lines []line, id string) (out []line) {
	for _, l := range lines {
		if l.RequestID == id {
			out = append(out, l)
		}
	}
	return out
}

// mustVerify checks the live log, and an export of it offline.
func mustVerify(t testing.TB, g *Gate) audit.Report {
	t.Helper()
	live, err := g.Verify(context.Background())
	if err != nil {
		t.Fatalf("verifying the live log: %v", err)
	}
	var out bytes.Buffer
	if err := g.Export(context.Background(), &out); err != nil {
		t.Fatalf("exporting: %v", err)
	}
	kept, err := g.keptCheckpoints(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(&out, g.cfg.Key, kept)
	if err != nil {
		t.Fatalf("verifying the export: %v", err)
	}
	if report.Events != live.Events || report.Kept != len(kept) {
		t.Errorf("the export has %d events, the live log %d", report.Events, live.Events)
	}
	return report
}

// tampered is a store whose appends and changes can be made to fail, before or after the database did its work.
type tampered struct {
	store.Store
	mu     sync.Mutex
	before func(*audit.Segment) error // asked before an Append; for a Change with nil
	after  func(*audit.Segment) error // asked after one that succeeded
}

func (s *tampered) hooks(before, after func(*audit.Segment) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

func (s *tampered) get() (before, after func(*audit.Segment) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before, s.after
}

func (s *tampered) Append(ctx context.Context, g *audit.Segment) error {
	before, after := s.get()
	if before != nil {
		if err := before(g); err != nil {
			return err
		}
	}
	err := s.Store.Append(ctx, g)
	if err == nil && after != nil {
		return after(g)
	}
	return err
}

func (s *tampered) Change(ctx context.Context, fn func(store.Tx) error) error {
	before, after := s.get()
	if before != nil {
		if err := before(nil); err != nil {
			return err
		}
	}
	err := s.Store.Change(ctx, fn)
	if err == nil && after != nil {
		return after(nil)
	}
	return err
}

var (
	errDisk    = fault.New(api.CodeUnavailable, "the disk is full")
	errUnknown = fault.Wrap(api.CodeUnavailable, errors.Join(store.ErrCommitUnknown), "the answer was lost")
)

// once makes a hook that fails the first time only.
func once(err error) func(*audit.Segment) error {
	var done bool
	return func(*audit.Segment) error {
		if done {
			return nil
		}
		done = true
		return err
	}
}

// eventually waits until a condition holds that a background goroutine brings about; the test's own deadline ends it.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func contains(s, sub string) bool { return strings.Contains(s, sub) }
