package server

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/store"
)

// Administrator is the name of the principal that init makes: with the role of that name, and as which commands on the
// data directory act.
const Administrator = "owner"

// InitOptions are the choices of `keyturn init`.
type InitOptions struct {
	Store      string           // default: KEYTURN_STORE, else "sqlite"
	MasterKeys []string         // default: KEYTURN_MASTER_KEYS, else a new key in the file master.key of the data directory
	Embedded   bool             // see Options.Embedded
	Environ    []string         // default: os.Environ()
	Clock      func() time.Time // default: time.Now
}

// Initialised says what Init made.
type Initialised struct {
	Dir       string
	Store     string // without any password
	StoreID   string
	MasterKey string // the first one's URL
	Principal string // the administrator
	AuditKey  string // the file with the log's public key
}

// Init makes a store: data directory, master key if none is named, key-encryption keys, the audit log's keys, the first
// administrator, audit.pub, keyturn.yaml. Where keyturn.yaml is, a store is, and Init refuses with conflict.
//
// # A crash
//
// Each step sees whether an earlier attempt did it: the master key (a master.key that lies there is used, never
// replaced), the keys inside the store (one transaction), the administrator (another), and keyturn.yaml, whose presence
// says that all is done, last. So what a kill leaves behind is not yet a store, and Init, called again in the same way,
// finishes it. In the same way a second node joins a PostgreSQL store, and a lost keyturn.yaml is made again: only whoever
// has the master key can.
func Init(ctx context.Context, dir string, opts InitOptions) (Initialised, error) {
	if err := harden(opts.Embedded); err != nil {
		return Initialised{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Initialised{}, fault.Wrap(api.CodeInvalid, err, "finding the data directory").WithField("dir")
	}
	i := initialiser{dir: dir, environ: environOr(opts.Environ), clock: opts.Clock}
	if i.clock == nil {
		i.clock = time.Now
	}
	if err := i.choose(opts); err != nil {
		return Initialised{}, err
	}
	if err := i.reach(ctx); err != nil {
		return Initialised{}, err
	}
	if err := openDir(dir, true); err != nil {
		return Initialised{}, err
	}
	lock, err := lockDir(ctx, dir, "keyturn init", lockWait)
	if err != nil {
		return Initialised{}, err
	}
	defer lock.release()
	if exists(filepath.Join(dir, ConfigFile)) {
		return Initialised{}, fault.New(api.CodeConflict, "making a store: the data directory holds one already").WithField("dir").
			WithNext("use it as it is, or name another directory: --dir DIR")
	}
	return i.run(ctx)
}

// initialiser is one run of Init.
type initialiser struct {
	dir     string
	environ []string
	clock   func() time.Time
	cfg     Config
	own     bool // the master key is to be made in the data directory
}

// choose reads and checks every choice before anything is written.
func (i *initialiser) choose(opts InitOptions) (err error) {
	set := map[string]any{}
	if opts.Store != "" {
		set["store"] = opts.Store
	}
	if len(opts.MasterKeys) > 0 {
		set["masterKeys"] = opts.MasterKeys
	} else if !envSets(i.environ, "MASTER_KEYS") {
		i.own = true
		set["masterKeys"] = []string{"file://" + filepath.Join(i.dir, MasterKeyFile)}
	}
	i.cfg, err = LoadConfig(i.dir, i.environ, set)
	return err
}

// reach opens every master key that was named, so that a URL with a typo, a key that isn't there or a permission that is
// missing is told before anything is written.
func (i *initialiser) reach(ctx context.Context) error {
	if i.own {
		return nil
	}
	opens := false
	for _, url := range i.cfg.MasterKeys {
		m, err := keyring.OpenURL(ctx, masterDrivers, url)
		if err != nil {
			return err
		}
		opens = opens || keyring.Opens(m)
		_ = m.Close()
	}
	if !opens {
		return fault.New(api.CodeInvalid, "making a store: escrow:// alone doesn't open one").WithField(keyring.FieldURL).
			WithNext("name another master key too, and make shares when the store is there: keyturn escrow split")
	}
	return nil
}

// run does what is left to do, in an order that a repetition can follow.
func (i *initialiser) run(ctx context.Context) (done Initialised, err error) {
	removeLeftovers(i.dir)
	if err := closeFiles(i.dir, i.cfg.MasterKeys); err != nil {
		return done, err
	}
	if err := i.masterKey(ctx); err != nil {
		return done, err
	}
	open, err := storeDriver(i.cfg.Store.Reveal())
	if err != nil {
		return done, err
	}
	st, err := open(ctx, i.dir, i.cfg.Store)
	if err != nil {
		return done, err
	}
	defer st.Close()
	if err := i.keys(ctx, st); err != nil {
		return done, err
	}
	if err := i.administrator(ctx, st); err != nil {
		return done, err
	}
	if err := i.files(ctx, st); err != nil {
		return done, err
	}
	return Initialised{
		Dir: i.dir, Store: st.Describe(), StoreID: st.ID(), MasterKey: i.cfg.MasterKeys[0], Principal: Administrator,
		AuditKey: filepath.Join(i.dir, AuditKeyFile),
	}, nil
}

// masterKey makes the master key in the data directory, unless an earlier attempt has.
func (i *initialiser) masterKey(ctx context.Context) error {
	if !i.own || exists(filepath.Join(i.dir, MasterKeyFile)) {
		return nil
	}
	d, err := masterDriver(i.cfg.MasterKeys[0])
	if err != nil {
		return err
	}
	return d.(keyring.Generator).Generate(ctx, i.cfg.MasterKeys[0])
}

// keys makes the key-encryption keys and the log's own keys, in one transaction, unless the store has them.
func (i *initialiser) keys(ctx context.Context, st store.Store) error {
	_, err := view(ctx, st, func(tx store.Tx) (audit.SealedKeys, error) { return tx.AuditKeys(ctx) })
	if fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	masters, err := keyring.OpenMasters(ctx, masterDrivers, i.cfg.MasterKeys)
	if err != nil {
		return err
	}
	fresh := &freshKEKs{}
	ring := keyring.New(st.ID(), masters, fresh)
	defer ring.Close()
	if fresh.keks, err = ring.NewKEKs(ctx, keys.KEKPurposes()); err != nil {
		return err
	}
	if err := ring.Open(ctx); err != nil {
		return err
	}
	logKeys, err := newAuditKeys(ctx, ring, st.ID(), i.clock().UTC().Truncate(time.Microsecond))
	if err != nil {
		return err
	}
	return st.Change(ctx, func(tx store.Tx) error {
		if err := tx.PutKEKs(ctx, fresh.keks...); err != nil {
			return err
		}
		return tx.PutAuditKeys(ctx, logKeys)
	})
}

// view reads one thing in a snapshot of its own.
func view[T any](ctx context.Context, st store.Store, read func(store.Tx) (T, error)) (out T, err error) {
	err = st.View(ctx, func(tx store.Tx) (err error) {
		out, err = read(tx)
		return err
	})
	return out, err
}

// freshKEKs stands for the store while the KEKs are not in it yet.
type freshKEKs struct {
	keyring.Source
	keks []keys.KEK
}

// KEKs is keyring.Source.
func (f *freshKEKs) KEKs(context.Context) ([]keys.KEK, error) { return f.keks, nil }

// administrator makes the first principal, which is the log's first event, unless the store has it. It opens the store as
// a server does, so that wrong master keys are found here and not at the first start.
func (i *initialiser) administrator(ctx context.Context, st store.Store) (err error) {
	masters, err := keyring.OpenMasters(ctx, masterDrivers, i.cfg.MasterKeys)
	if err != nil {
		return err
	}
	attested := kms.Attest(st)
	directory := kms.Directory{Store: attested}
	ring := keyring.New(st.ID(), masters, directory)
	attested.Under(ring)
	defer ring.Close()
	if err := ring.Open(ctx); err != nil {
		return err
	}
	if _, err := directory.LocalAdministrator(ctx); fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	g, _, err := openGate(ctx, gateSetup{dir: i.dir, cfg: i.cfg, clock: i.clock}, attested, ring)
	if err != nil {
		return err
	}
	if err := g.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close(ctx)) }()
	if _, err := attested.CheckRows(ctx, i.clock()); err != nil { // founds the sums of rows
		return err
	}
	// The token that comes with it is not shown: who needs one asks for it, and this one ends then.
	_, err = kms.New(kms.Config{Gate: g, Ring: ring, Store: attested, Clock: clock.New(i.clock, nil)}).Bootstrap(ctx, Administrator)
	return err
}

// files writes what lies beside the store: the log's public key, and at last the configuration.
func (i *initialiser) files(ctx context.Context, st store.Store) error {
	sealed, err := view(ctx, st, func(tx store.Tx) (audit.SealedKeys, error) { return tx.AuditKeys(ctx) })
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(i.dir, AuditKeyFile), []byte(sealed.Verifier+"\n")); err != nil {
		return err
	}
	return writeFile(filepath.Join(i.dir, ConfigFile), configText(i.cfg.Store, i.cfg.MasterKeys))
}

// The bindings of the audit log's own keys.
func auditBinding(id string) keyring.Binding {
	return keyring.Binding{Kind: "audit-key", ID: id, Version: 1, State: "active"}
}

const (
	bindSigning = "signing" // the Ed25519 key of checkpoints
	bindMAC     = "mac"     // the HMAC key of value_hash
	macSize     = 32
)

// newAuditKeys makes the log's keys and seals them under the KEK for audit.
func newAuditKeys(ctx context.Context, ring *keyring.Ring, storeID string, now time.Time) (audit.SealedKeys, error) {
	secret, public, err := audit.GenerateKey(rand.Reader, storeID)
	if err != nil {
		return audit.SealedKeys{}, err
	}
	defer clear(secret)
	mac := make([]byte, macSize)
	defer clear(mac)
	_, _ = rand.Read(mac) // never fails: see crypto/rand
	out := audit.SealedKeys{Verifier: public, Created: now}
	if out.Signing, err = ring.Seal(ctx, keys.KEKAudit, auditBinding(bindSigning), secret); err != nil {
		return out, err
	}
	out.MAC, err = ring.Seal(ctx, keys.KEKAudit, auditBinding(bindMAC), mac)
	return out, err
}

// auditSigner opens the log's keys.
func auditSigner(ctx context.Context, ring *keyring.Ring, st store.Store) (*audit.Key, audit.Signer, error) {
	sealed, err := view(ctx, st, func(tx store.Tx) (audit.SealedKeys, error) { return tx.AuditKeys(ctx) })
	if err != nil {
		return nil, nil, fault.Wrap("", err, "reading the audit log's keys")
	}
	secret, err := ring.Unseal(ctx, keys.KEKAudit, auditBinding(bindSigning), sealed.Signing)
	if err != nil {
		return nil, nil, fault.Wrap("", err, "opening the audit log's signing key")
	}
	defer clear(secret)
	signer, err := audit.NewSigner(secret)
	if err != nil {
		return nil, nil, err
	}
	public, err := audit.ParseKey(sealed.Verifier)
	return public, signer, err
}

// harden closes core dumps and debuggers, unless this is somebody else's program.
func harden(embedded bool) error {
	if embedded {
		return nil
	}
	return material.Harden()
}
