// Package kms is the key-management service: the life of keys and versions, what is done with them, the master keys above
// them, and who may ask. Every method speaks the wire's types of package api, goes through the one doorway (package gate),
// and so is decided, done and recorded together.
//
//	svc := kms.New(kms.Config{Gate: g, Ring: ring, Store: st, Clock: clock.New(time.Now, nil), …})
//	err := svc.Start(ctx)
//	key, err := svc.Create(ctx, caller, api.CreateKeyRequest{Name: "phi"})
//	text, version, err := svc.Encrypt(ctx, caller, "phi", plaintext, bound, `{"patient":"17"}`, nil)
//	err = svc.Close(ctx)
//
// # What holds for every method
//
// Nothing is answered before its audit record is durable (P2): when the record can't be written, what was produced is
// wiped and the answer is "unavailable". A version is used only after the transaction that made it has committed (P1):
// the ring reads versions from the store alone. Errors name fields and versions, never values (P3).
//
// # How a change is made
//
// Inside one transaction: read the key, apply the pure step of package keys, bind the material of the touched versions
// to their new state, write, and write the event. Binding needs only key-encryption keys that are in memory already, so
// no network is waited for while the transaction is open; what does need one (a census of somebody's database) happens
// before. The transaction may run again, so it starts from what it reads. Afterwards this node's cached copy is dropped,
// before the caller hears of it.
//
// A crash in the middle of a change leaves nothing of it; a crash after the commit leaves all of it, with its event.
//
// # What is counted
//
// Operations and bytes under a version are reserved in blocks and handed out in memory (see usage.go). The last opening
// of a version is noted at most once a minute. Both are durable before the answer that they belong to.
package kms

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Doorway is what the service needs of package gate: decide, do, record.
type Doorway interface {
	Use(ctx context.Context, c *access.Caller, in gate.Intent, run func(ctx context.Context, ev *audit.Event) error) error
	Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error
}

// Dependent is something that still needs a version: where it is, and how many values.
type Dependent struct {
	Resource string // e.g. "dataset/patients"
	Column   string // where in it; may be empty
	Rows     int64
}

// Dependents finds what depends on a version, by looking now. An error means that nobody can know, and refuses the
// destruction. It may take long and ask other databases.
type Dependents interface {
	Dependents(ctx context.Context, id envelope.KeyID, version uint32) ([]Dependent, error)
}

// Tombstone says that a version was destroyed. The list lies outside the store, so that a backup from before the
// destruction doesn't bring the version back unnoticed.
type Tombstone struct {
	KeyID   envelope.KeyID `json:"keyId"`
	Key     string         `json:"key"`
	Version uint32         `json:"version"`
	At      time.Time      `json:"at"`
}

// Tombstones is the append-only list. Append returns when the entry is durable.
type Tombstones interface {
	Append(ctx context.Context, t Tombstone) error
	List(ctx context.Context) ([]Tombstone, error)
}

// MasterConfig is how the service changes which master keys the configuration names.
type MasterConfig interface {
	// Open opens the master key of a URL with the driver of its scheme.
	Open(ctx context.Context, url string) (keyring.MasterKey, error)
	// Canonical is a URL as the master key that it names would spell it, found without opening that; what isn't a URL stays as it is.
	Canonical(ctx context.Context, url string) string
	// Editable is asked before anything is changed: nil when Save can have an effect, or why the list can't be edited here.
	Editable() error
	// Save writes the list of URLs to the configuration, durably; the first one wraps first.
	Save(ctx context.Context, urls []string) error
}

// Config is what a Service is made of. Gate, Ring, Store and Clock are required.
type Config struct {
	Gate  Doorway
	Ring  *keyring.Ring
	Store store.Store
	Clock *clock.Clock

	// Node is this process's name among those that share the store.
	Node string
	// Dependents are asked before a version is destroyed, and again when its destruction falls due.
	Dependents []Dependents
	// Enqueue puts a job into the queue, inside the transaction that makes it necessary; for DestroyDue.
	Enqueue func(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error)
	// DestroyQuiet is how long nobody must have opened a version before its destruction may be scheduled; 0: no such rule.
	DestroyQuiet time.Duration
	// Tombstones is the list of destroyed versions outside the store; nil where there is none (in-memory tests).
	Tombstones Tombstones
	// Masters changes the configuration; nil: adding and removing master keys is refused.
	Masters MasterConfig
	// OtherNodes names the nodes that run on the store beside this one; nil: there are none.
	OtherNodes func(ctx context.Context) ([]string, error)
	// Policies are those that the configuration brings, the shipped ones included. Those that were set come from the store.
	Policies []keys.Policy
	// Rotated is called inside the transaction of every rotation, so that what is to follow it is decided with it or not at
	// all. May be nil.
	Rotated func(ctx context.Context, tx store.Tx, r keys.Rotation) error
	// SignedOut is called after a principal or token was changed: drops what sign-in remembers. May be nil.
	SignedOut func()
	// Checks are the doctor's checks of what this room can't see: files, modes, places.
	Checks []Check
	// Environment and Started are shown by status.
	Environment string
	Started     time.Time
}

// Service is the key-management service. Its methods are safe for concurrent use.
type Service struct {
	cfg   Config
	gate  Doorway
	ring  *keyring.Ring
	st    store.Store
	time  *clock.Clock
	clock func() time.Time // its Now
	usage *usage

	masterMu sync.Mutex // held by whoever changes master keys or key-encryption keys, on this node
	waiting  waiting    // the escrow set that is prepared
	buried   graveyard
	health   compliance
	book     ruleBook
	watched  watch
}

// New makes a service; Start makes it ready.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, gate: cfg.Gate, ring: cfg.Ring, st: cfg.Store, time: cfg.Clock, clock: cfg.Clock.Now, usage: newUsage(cfg.Store, cfg.Clock.Now)}
}

// Start makes the service ready: it loads the list of destroyed versions, so that none of them can be used, and brings
// the list up to date with the store. What fell due is executed by RunDue.
func (s *Service) Start(ctx context.Context) error {
	if s.time.Behind() > clock.Slack {
		_ = s.WatchClock(ctx) // a store that can't be written to is no reason not to start: a server looks again each minute
	}
	return s.bury(ctx)
}

// Close gives back what was reserved and not used. It may be called twice; afterwards nothing is protected any more.
func (s *Service) Close(ctx context.Context) error {
	s.waiting.forget()
	return s.usage.close(ctx)
}

// SystemName is who keyturn is where it does something by itself.
const SystemName = "system"

// system is the caller of what keyturn does by itself. Nobody else can have that name: it is reserved.
func system() *access.Caller {
	return &access.Caller{
		Principal: &access.Principal{ID: SystemName, Name: SystemName, Role: access.RoleOwner, Scope: []string{"*"}},
		Method:    methodInternal,
	}
}

// methodInternal is the method of system in events.
const methodInternal = "internal"

// allowed looks ahead at the gate's decision, for work that must be done before the gate's transaction and only for who
// may ask for it. The gate decides again, and records.
func allowed(c *access.Caller, a access.Action, r access.Resource) bool {
	return c != nil && access.Decide(c.Principal, a, r).Allowed
}

func keyResource(name string) access.Resource {
	return access.Resource{Kind: access.KindKey, Name: name}
}

// actor is the name that a transition carries.
func actor(c *access.Caller) string {
	if c == nil || c.Principal == nil {
		return ""
	}
	return c.Principal.Name
}

// keyNamed checks a key's name before anything is looked up or recorded under it.
func keyNamed(name string) error {
	if err := keys.ValidateName(name); err != nil {
		return fault.Wrap(api.CodeInvalid, err, "reading the key's name").WithField("key")
	}
	return nil
}
