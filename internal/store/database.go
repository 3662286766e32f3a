package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Limits of waiting. A commit or an Append that takes longer is given up, its outcome unknown.
const (
	commitTimeout = 30 * time.Second
	maxCollisions = 40 // times that Change runs again; with the pauses below some 10 s
)

// Database is a Store over database/sql, the same for both drivers.
type Database struct {
	b      *Backend
	id     string
	append *sql.Stmt      // see Append
	hook   func(Op) error // see Hooked; nil in a running keyturn

	// sick is set once, by the first DiskError, and never cleared: see failed.
	sick    *atomic.Pointer[fault.Error]
	scrubs  *scrubbing
	closing *sync.Once
}

var _ Store = (*Database)(nil)

// New makes a Store of a database whose tables are up to date (see Migrate). It checks Durable, and closes nothing when
// it fails: that is the driver's business.
func New(ctx context.Context, b Backend) (*Database, error) {
	d := &Database{b: &b, sick: new(atomic.Pointer[fault.Error]), scrubs: new(scrubbing), closing: new(sync.Once)}
	if err := b.Durable(ctx); err != nil {
		return nil, err
	}
	var err error
	if d.append, err = b.Writer.PrepareContext(ctx, d.b.appendSQL(b.Premises)); err != nil {
		return nil, b.translate(ctx, err, "preparing the audit log's statement")
	}
	if err := d.Change(ctx, func(tx Tx) (err error) { d.id, err = storeID(ctx, tx); return err }); err != nil {
		return nil, errors.Join(err, d.append.Close())
	}
	return d, nil
}

// ID implements Store.
func (d *Database) ID() string { return d.id }

// Dialect implements Store.
func (d *Database) Dialect() Dialect { return d.b.Dialect }

// DB implements Store.
func (d *Database) DB() *sql.DB { return d.b.Writer }

// Describe implements Store.
func (d *Database) Describe() string { return d.b.Address }

// Durable implements Store.
func (d *Database) Durable(ctx context.Context) error {
	if err := d.healthy(); err != nil {
		return err
	}
	return d.failed(ctx, d.b.Durable(ctx), "asking the database for its settings")
}

// Close implements Store.
func (d *Database) Close() (err error) {
	d.closing.Do(func() {
		d.scrubs.again.Store(0)
		d.scrub(context.Background())
		err = d.letGo()
	})
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "closing the database")
	}
	return nil
}

// letGoTime is how long closing connections to a server may take. Nothing of ours is under way any more.
const letGoTime = 5 * time.Second

// letGo closes the connections. database/sql waits for a statement that somebody else (River) sent without an end and that a
// silent server never answers; such a connection is left to the end of the process. A file always answers.
func (d *Database) letGo() error {
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(d.append.Close(), d.b.Close()) }()
	if d.b.Dialect == SQLite {
		return <-closed
	}
	patience := time.NewTimer(letGoTime)
	defer patience.Stop()
	select {
	case err := <-closed:
		return err
	case <-patience.C:
		return context.DeadlineExceeded
	}
}

// View implements Store.
func (d *Database) View(ctx context.Context, fn func(Tx) error) error {
	t, err := d.begin(ctx, d.b.Reader, d.b.ViewMode)
	if err != nil {
		return err
	}
	defer t.end()
	if err := fn(t); err != nil {
		return err
	}
	return t.broken
}

// Change implements Store.
func (d *Database) Change(ctx context.Context, fn func(Tx) error) error {
	if err := d.healthy(); err != nil {
		return err
	}
	for collisions := 1; ; collisions++ {
		err := d.changeOnce(ctx, fn)
		if err == nil {
			d.scrub(ctx)
		}
		if !errors.Is(err, errCollision) {
			return err
		}
		if collisions == maxCollisions {
			return d.b.translate(ctx, &ProblemError{Collision}, "changing the store")
		}
		if err := pause(ctx, collisions); err != nil {
			return err
		}
	}
}

// errCollision is how changeOnce says that it surely did nothing and wants to be called again. It never leaves Change.
var errCollision = errors.New("collision")

func (d *Database) changeOnce(ctx context.Context, fn func(Tx) error) error {
	t, err := d.begin(ctx, d.b.Writer, d.b.ChangeMode)
	if err != nil {
		return err
	}
	defer t.end() // rolls back unless committed, after a panic too
	err = fn(t)
	switch {
	case t.collided || err != nil && d.b.classify(err) == Collision:
		return errCollision
	case err != nil:
		return err
	case t.broken != nil: // fn overlooked it, but nothing can be committed any more
		return t.broken
	}
	if err := t.announce(ctx); err != nil {
		if t.collided {
			return errCollision
		}
		return err
	}
	if t.destroyed {
		d.scrubs.due.Store(true)
	}
	return t.commit(ctx)
}

// pause waits a random time that grows with the number of collisions, so that those who collided don't meet again.
func pause(ctx context.Context, collisions int) error {
	var random [8]byte
	rand.Read(random[:]) //nolint:errcheck // never returns an error since Go 1.24
	limit := uint64(min(time.Millisecond<<min(collisions, 9), 500*time.Millisecond))
	timer := time.NewTimer(time.Duration(binary.NativeEndian.Uint64(random[:]) % limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fault.Wrap("", context.Cause(ctx), "waiting to change the store")
	}
}

// undone is the driver's Undone. An injected failure says by its sort what it stands for.
func (d *Database) undone(err error) bool {
	var injected *ProblemError
	if errors.As(err, &injected) {
		return injected.Problem == Collision || injected.Problem == Full
	}
	return d.b.Undone(err)
}

// failed translates an error and remembers a failing disk. After a failed fsync the kernel may forget that pages were
// never written, and the next fsync succeeds without them: only reading the files anew tells what is there. So the store
// writes nothing more until it is opened again.
func (d *Database) failed(ctx context.Context, err error, doing string) error {
	if err == nil {
		return nil
	}
	out := d.b.translate(ctx, err, doing)
	if d.b.classify(err) == DiskError {
		p := problems[DiskError]
		d.sick.CompareAndSwap(nil, fault.Wrap(p.Code, err, p.Message).WithNext(p.Next))
	}
	return out
}

// healthy refuses to write after a disk error.
func (d *Database) healthy() error {
	if sick := d.sick.Load(); sick != nil {
		return sick
	}
	return nil
}

// String keeps a printed Database from showing its pools.
func (d *Database) String() string { return fmt.Sprintf("%s store %s", d.b.Dialect, d.b.Address) }
