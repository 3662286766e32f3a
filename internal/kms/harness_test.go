package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/escrow"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// machine is time as tests make it pass, with the clock of a machine that is set. It is safe for concurrent use.
type machine struct {
	mu     sync.Mutex
	begin  time.Time
	passed time.Duration // how much time has really passed
	off    time.Duration // by how much the machine's clock is wrong
	db     time.Duration // and the database's
}

// Now is what the machine's clock shows.
func (c *machine) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin.Add(c.passed + c.off)
}

// Database is what the database's clock shows, where there is one.
func (c *machine) Database() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin.Add(c.passed + c.db)
}

// Elapsed is how much time has really passed.
func (c *machine) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed
}

// Add lets time pass.
func (c *machine) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed += d
}

// Jump sets the clocks: the machine's and the database's.
func (c *machine) Jump(own, db time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off, c.db = c.off+own, c.db+db
}

// databaseClock is a store whose database's clock is the test's. SQLite has none.
type databaseClock struct {
	store.Store
	clock *machine
}

func (d databaseClock) View(ctx context.Context, fn func(store.Tx) error) error {
	return d.Store.View(ctx, func(tx store.Tx) error { return fn(databaseTx{tx, d.clock}) })
}

func (d databaseClock) Change(ctx context.Context, fn func(store.Tx) error) error {
	return d.Store.Change(ctx, func(tx store.Tx) error { return fn(databaseTx{tx, d.clock}) })
}

type databaseTx struct {
	store.Tx
	clock *machine
}

func (t databaseTx) Now(context.Context, time.Time) (time.Time, error) {
	return t.clock.Database(), nil
}

// house is a whole store with everything that the service needs, on a real SQLite file or a real PostgreSQL database.
type house struct {
	t      testing.TB
	path   string // of the SQLite file
	url    string // of the PostgreSQL database; empty = SQLite
	st     store.Store
	ring   *keyring.Ring
	gate   *gate.Gate
	svc    *Service
	clock  *machine
	time   *clock.Clock // what the service makes of it
	graves *graves
	deps   *dependents
	config *masterConfig
	drops  atomic.Int64 // of what sign-in remembers
	forged bool         // somebody else wrote rows
}

// options change the house before it is built.
type options struct {
	wrap   func(store.Store) store.Store // what the service and the gate see of the store
	door   func(Doorway) Doorway
	quiet  time.Duration
	checks []Check
	url    string // of an empty PostgreSQL database; empty = SQLite
}

func newHouse(t testing.TB, o options) *house {
	t.Helper()
	h := &house{
		t: t, path: filepath.Join(t.TempDir(), "keyturn.db"), graves: &graves{}, deps: &dependents{}, config: &masterConfig{},
		clock: &machine{begin: time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC)},
	}
	h.url = o.url
	attested := h.openStore()
	h.st = attested
	h.initialise(attested)
	h.build(o)
	return h
}

func (h *house) openStore() *Attested {
	h.t.Helper()
	var st store.Store
	var err error
	if h.url != "" {
		if st, err = postgres.Open(context.Background(), h.url, postgres.Config{}); err == nil {
			st = databaseClock{st, h.clock}
		}
	} else {
		st, err = sqlite.Open(context.Background(), h.path, sqlite.Config{})
	}
	h.must(err)
	h.t.Cleanup(func() { _ = st.Close() })
	return Attest(st)
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%v (%v)", err, fault.CodeOf(err))
	}
}

func masterKey(t testing.TB, name string) keyring.MasterKey {
	t.Helper()
	seed := bytes.Repeat([]byte(name+"-0123456789abcdef"), 32)[:32]
	m, err := keyring.Hold("file:///"+name, "file", material.New(seed))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// initialise makes the key-encryption keys and the log's keys, as init does.
func (h *house) initialise(attested *Attested) {
	h.t.Helper()
	ctx := context.Background()
	h.ring = keyring.New(h.st.ID(), []keyring.MasterKey{masterKey(h.t, "first")}, Directory{h.st})
	attested.Under(h.ring)
	keks, err := h.ring.NewKEKs(ctx, keys.KEKPurposes())
	h.must(err)
	_, public := h.signer()
	h.must(h.st.Change(ctx, func(tx store.Tx) error {
		if err := tx.PutKEKs(ctx, keks...); err != nil {
			return err
		}
		return tx.PutAuditKeys(ctx, audit.SealedKeys{Verifier: public.String(), Signing: []byte("-"), MAC: []byte("-"), Created: h.clock.Now()})
	}))
	h.must(h.ring.Open(ctx))
}

func (h *house) signer() (audit.Signer, *audit.Key) {
	h.t.Helper()
	secret, public, err := audit.GenerateKey(bytes.NewReader(make([]byte, 256)), h.st.ID())
	h.must(err)
	signer, err := audit.NewSigner(secret)
	h.must(err)
	key, err := audit.ParseKey(public)
	h.must(err)
	return signer, key
}

// build makes gate and service over the store.
func (h *house) build(o options) {
	h.t.Helper()
	ctx := context.Background()
	st := h.st
	if o.wrap != nil {
		st = o.wrap(st)
	}
	signer, key := h.signer()
	attested := h.st.(*Attested)
	h.time = clock.New(h.clock.Now, h.clock.Elapsed)
	seen, err := SeenTime(ctx, h.st)
	h.must(err)
	h.time.Raise(seen)
	h.gate, err = gate.New(gate.Config{Node: "n", Clock: h.time.Now, Key: key, CheckpointEvery: -1, SumCounts: SumCounts}, st, signer)
	h.must(err)
	h.must(h.gate.Start(ctx))
	h.must(second(attested.CheckRows(ctx, h.clock.Now())))
	h.t.Cleanup(func() { // whatever a test does by our means, the rows add up
		if _, err := attested.CheckRows(ctx, h.clock.Now()); err != nil && !h.forged {
			h.t.Errorf("the rows at the end of the test: %v", err)
		}
	})
	var door Doorway = h.gate
	if o.door != nil {
		door = o.door(door)
	}
	h.svc = New(Config{
		Gate: door, Ring: h.ring, Store: st, Clock: h.time, Node: "n", Dependents: []Dependents{h.deps}, DestroyQuiet: o.quiet,
		Tombstones: h.graves, Masters: h.config, SignedOut: func() { h.drops.Add(1) }, Checks: o.checks, Environment: "test", Policies: keys.ShippedPolicies(), Started: h.clock.Now(),
	})
	h.must(h.svc.Start(ctx))
	h.t.Cleanup(func() { _ = h.svc.Close(ctx); _ = h.gate.Close(ctx) })
}

// graves is the list of tombstones in memory.
type graves struct {
	list []Tombstone
	err  error
}

func (g *graves) Append(_ context.Context, t Tombstone) error {
	if g.err == nil {
		g.list = append(g.list, t)
	}
	return g.err
}

func (g *graves) List(context.Context) ([]Tombstone, error) { return g.list, nil }

// dependents answers what it is told, and counts who asks.
type dependents struct {
	found []Dependent
	err   error
	asked int
}

func (d *dependents) Dependents(context.Context, envelope.KeyID, uint32) ([]Dependent, error) {
	d.asked++
	return d.found, d.err
}

// masterConfig opens held keys named by URL, and keeps what is saved.
type masterConfig struct {
	openErr error
	lost    map[string]error // what opening a URL says, whose key may be open already
	opened  int
	saved   []string
	err     error
	fixed   error // the list comes from elsewhere
	others  map[string]func() keyring.MasterKey
}

// Canonical leaves away a parameter, which stands for whatever has several spellings.
func (m *masterConfig) Canonical(_ context.Context, url string) string {
	return strings.TrimSuffix(url, "?spelled=otherwise")
}

func (m *masterConfig) Editable() error { return m.fixed }

func (m *masterConfig) Open(_ context.Context, url string) (keyring.MasterKey, error) {
	m.opened++
	if m.openErr != nil {
		return nil, m.openErr
	}
	if err := m.lost[url]; err != nil {
		return nil, err
	}
	if url == keyring.EscrowURL {
		return escrow.Driver{}.Open(context.Background(), url)
	}
	if other, ok := m.others[url]; ok {
		return other(), nil
	}
	name, ok := strings.CutPrefix(url, "file:///")
	if !ok {
		return nil, fault.New(api.CodeInvalid, "reading a master key's URL").WithField("url")
	}
	return keyring.Hold(url, "file", material.New(bytes.Repeat([]byte(name+"-0123456789abcdef"), 32)[:32]))
}

func (m *masterConfig) Save(_ context.Context, urls []string) error {
	if m.err == nil {
		m.saved = urls
	}
	return m.err
}

// as is a caller of a role on everything.
func as(role string) *access.Caller { return asScoped(role, "*") }

func asScoped(role string, scope ...string) *access.Caller {
	return &access.Caller{Method: "token", RequestID: "req", Principal: &access.Principal{ID: role, Name: "some-" + role, Role: role, Scope: scope}}
}

func owner() *access.Caller { return as(access.RoleOwner) }

// create makes a key.
func (h *house) create(in api.CreateKeyRequest) api.Key {
	h.t.Helper()
	k, err := h.svc.Create(context.Background(), owner(), in)
	h.must(err)
	return k
}

func (h *house) encrypt(key, plaintext string, m map[string]string) string {
	h.t.Helper()
	text, err := h.tryEncrypt(key, plaintext, m)
	h.must(err)
	return text
}

func (h *house) tryEncrypt(key, plaintext string, m map[string]string) (string, error) {
	h.t.Helper()
	bound, err := envelope.NewContext(m)
	h.must(err)
	out, _, err := h.svc.Encrypt(context.Background(), owner(), key, []byte(plaintext), bound, "", nil)
	return string(out), err
}

func (h *house) tryDecrypt(c *access.Caller, key, text string, m map[string]string) (string, uint32, error) {
	h.t.Helper()
	bound, err := envelope.NewContext(m)
	h.must(err)
	out, version, err := h.svc.Decrypt(context.Background(), c, key, []byte(text), bound, "", nil)
	return string(out), version, err
}

// opens checks that a ciphertext opens to what it should.
func (h *house) opens(key, text, want string, m map[string]string, version uint32) {
	h.t.Helper()
	got, v, err := h.tryDecrypt(owner(), key, text, m)
	if err != nil || got != want || v != version {
		h.t.Errorf("a ciphertext of version %d opens as %d bytes of version %d: %v", version, len(got), v, err)
	}
}

// wants checks the code of an error, and its field if one is named.
func wants(t testing.TB, err error, code api.Code, field ...string) {
	t.Helper()
	if fault.CodeOf(err) != code || len(field) > 0 && fault.FieldOf(err) != field[0] {
		t.Errorf("error %v (%s, field %q), want %s %q", err, fault.CodeOf(err), fault.FieldOf(err), code, field)
	}
}

// stored reads a key from the store.
func (h *house) stored(name string) keys.Key {
	h.t.Helper()
	k, err := Directory{h.st}.KeyByName(context.Background(), name)
	h.must(err)
	return k
}

// event is what tests look at in an audit line.
type event struct {
	Type     string `json:"event_type"`
	Action   string `json:"action"`
	Success  bool   `json:"success"`
	User     string `json:"user_id"`
	Resource string `json:"resource"`
	Version  uint32 `json:"key_version"`
	Reason   string `json:"reason"`
	Details  map[string]any
	raw      string
}

// events reads the whole log of the first node.
func (h *house) events() []event {
	h.t.Helper()
	return h.eventsOf(0)
}

func (h *house) eventsOf(shard int) []event {
	h.t.Helper()
	var out []event
	err := h.st.View(context.Background(), func(tx store.Tx) error {
		out = nil
		return tx.Segments(context.Background(), audit.SegmentQuery{Shard: shard}, func(s *audit.Segment) error {
			for line := range bytes.SplitSeq(s.Lines, []byte("\n")) {
				e := event{raw: string(line)}
				if err := json.Unmarshal(line, &e); err != nil {
					return err
				}
				out = append(out, e)
			}
			return nil
		})
	})
	h.must(err)
	return out
}

func (h *house) lastEvent() event {
	h.t.Helper()
	all := h.events()
	if len(all) == 0 {
		h.t.Fatal("the log is empty")
	}
	return all[len(all)-1]
}

// everything is every byte that the store has on disk.
func (h *house) everything() []byte {
	h.t.Helper()
	var out []byte
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(h.path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			h.t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}
