package gate

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Config is what a gate needs to know. Zero values have the meaning that is written beside them.
type Config struct {
	Node        string           // this process's name among the nodes of a store; the host's name if empty
	Environment string           // written into every event; "production" if empty
	Clock       func() time.Time // time.Now if nil
	Key         *audit.Key       // the log's public key; required
	Log         *slog.Logger     // for what the background does; discarded if nil. Never sees values.

	// Outdated is called with a key that another process has changed while an operation here rested on what it was before: what
	// is remembered of it must go before the call returns. Nil where nothing is remembered.
	Outdated func(envelope.KeyID)

	// SumCounts reads how often each sum of the store's signed rows was written, for checkpoints to sign (audit.Checkpoint.Rows); nil where nobody
	// keeps sums. With fault integrity the gate stops.
	SumCounts func(context.Context, store.Tx) ([]uint64, error)
	// AcceptRows is called by Start, before it holds the rows against the checkpoints, with what the newest one says of them: whoever
	// sets it takes them for right as they stand. Nil otherwise.
	AcceptRows func(ctx context.Context, signed []uint64) error

	// CheckpointFile is where checkpoints are appended, outside the store; empty = nowhere. It should lie where whoever can
	// change the store can't change it too.
	CheckpointFile string
	// CheckpointEvery is how often a checkpoint is made while the log grows; 0 = 5 s, negative = only on demand and at Close.
	CheckpointEvery time.Duration
	// Lease is how long a node that was killed keeps its shard; 0 = 15 s. It is renewed at a third of that. SQLite has none.
	Lease time.Duration
	// Gather is how long at most a leader waits for more events while many arrive; 0 = 200 us, negative = not at all.
	Gather time.Duration
}

const (
	defaultCheckpointEvery = 5 * time.Second
	defaultLease           = 15 * time.Second
	defaultGather          = 200 * time.Microsecond
)

// Gate is the doorway of one process. Make it with New, then Start it. Safe for concurrent use.
type Gate struct {
	cfg    Config
	st     store.Store
	signer audit.Signer
	pid    int
	shared bool // other processes may change the store: see premise.go

	// turn is the right to append to the shard: whoever put a token in has it and takes it out when done. It is a channel
	// so that waiting for it can be given up. shard is the turn holder's.
	turn  chan struct{}
	shard shard

	// mu guards open, the batch that is gathering, nil when nobody waits, and spare, buffers for the next one.
	mu    sync.Mutex
	open  *batch
	spare *contents

	// head is the durable end of our shard, written by the turn holder, read by anybody.
	headMu sync.Mutex
	head   audit.ShardHead

	stopped  atomic.Pointer[fault.Error] // why nothing is answered any more
	refusing atomic.Bool                 // the last event could not be recorded, so its operation was not answered
	probed   atomic.Int64                // when Ready last tried the store, in microseconds
	away     atomic.Pointer[fault.Error] // what it found then, if it only read; nil = the store was there

	checkpoints checkpointer
	news        news
	background  sync.WaitGroup
	cancel      context.CancelFunc
	closeOnce   sync.Once
	closeErr    error
}

// New makes a gate that refuses everything until it is started. The signer is that of cfg.Key.
func New(cfg Config, st store.Store, signer audit.Signer) (*Gate, error) {
	if cfg.Key == nil || signer == nil || signer.Name() != cfg.Key.Origin() || cfg.Key.Origin() != audit.Origin(st.ID()) {
		return nil, fault.New(api.CodeIntegrity, "opening the audit log: its signing key is not that of this store").
			WithNext("check that audit.pub and the store belong together")
	}
	cfg.fill()
	g := &Gate{cfg: cfg, st: st, signer: signer, pid: os.Getpid(), shared: st.Dialect() != store.SQLite, turn: make(chan struct{}, 1)}
	g.checkpoints.file.path = cfg.CheckpointFile
	g.stopped.Store(errNotStarted)
	return g, nil
}

var errNotStarted = fault.New(api.CodeUnavailable, "the audit log is not open: it was not started, or was closed")

func (c *Config) fill() {
	if c.Node == "" {
		c.Node, _ = os.Hostname() // only a name to show; an empty one harms nothing
	}
	if c.Environment == "" {
		c.Environment = "production"
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.SumCounts == nil {
		c.SumCounts = func(context.Context, store.Tx) ([]uint64, error) { return nil, nil }
	}
	if c.Outdated == nil {
		c.Outdated = func(envelope.KeyID) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = defaultCheckpointEvery
	}
	if c.Lease == 0 {
		c.Lease = defaultLease
	}
	if c.Gather == 0 {
		c.Gather = defaultGather
	}
}

// now is the time as the store keeps it.
func (g *Gate) now() time.Time { return g.cfg.Clock().UTC().Truncate(time.Microsecond) }

// Start takes a shard, checks that the log still continues the newest checkpoints in the store and in the checkpoint
// file, and begins to answer. It returns when that is done; Close undoes it. With fault integrity the log is not what was
// signed: everything stays refused, while Verify, Export and Query can still be used to look into it.
func (g *Gate) Start(ctx context.Context) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	if err := g.checkAnchors(ctx); err != nil {
		g.stop(err)
		_ = g.giveUp(ctx) // only so that the next one needn't wait for the lease to run out
		return err
	}
	g.stopped.Store(nil)
	running, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	if g.cfg.CheckpointEvery > 0 {
		g.background.Go(func() { g.keepCheckpoints(running) })
	}
	if g.shared {
		g.background.Go(func() { g.keepLease(running) })
	}
	return nil
}

// Close refuses new work, waits for what is under way, signs a last checkpoint if the log has grown, and gives the shard
// up. A second call returns what the first did. The store stays open.
func (g *Gate) Close(ctx context.Context) error {
	g.closeOnce.Do(func() { g.closeErr = g.shutdown(ctx) })
	return g.closeErr
}

func (g *Gate) shutdown(ctx context.Context) error {
	if g.cancel == nil {
		return g.checkpoints.file.close()
	}
	g.cancel()
	g.background.Wait()
	select {
	case g.turn <- struct{}{}: // whoever is committing ends first; whoever comes later is refused
	case <-ctx.Done():
		return fault.Wrap("", context.Cause(ctx), "closing the audit log")
	}
	healthy := g.stopped.CompareAndSwap(nil, errNotStarted)
	<-g.turn
	var err error
	if healthy {
		if g.grown() {
			_, err = g.sign(ctx, carryOthers)
		}
		if lease := g.giveUp(ctx); err == nil {
			err = lease
		}
	}
	if closing := g.checkpoints.file.close(); err == nil {
		err = closing
	}
	return err
}

// Err is nil while the gate answers, and the reason why it doesn't otherwise. Readiness asks here.
func (g *Gate) Err() error {
	if f := g.stopped.Load(); f != nil {
		return f
	}
	return nil
}

// Ready is Err, and an error also while the store can't be reached, or events can't be recorded, as on a full disk: then nothing
// could be answered. It tries that itself, at most once a second: if nobody sends requests to a server, because it isn't ready
// or because there are none, no request would find out.
func (g *Gate) Ready() error {
	if err := g.Err(); err != nil {
		return err
	}
	refusing := g.refusing.Load()
	now, last := g.now().UnixMicro(), g.probed.Load()
	if now-last < time.Second.Microseconds() && now >= last || !g.probed.CompareAndSwap(last, now) {
		if away := g.away.Load(); away != nil && !refusing {
			return away
		}
		return refused(refusing)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if !refusing {
		err := g.st.View(ctx, func(tx store.Tx) error {
			_, err := tx.Meta(ctx, metaProbe)
			return err
		})
		if err == nil || fault.CodeOf(err) == api.CodeNotFound {
			g.away.Store(nil)
			return nil
		}
		away := fault.Wrap(api.CodeUnavailable, err, "looking whether the store can be reached")
		g.away.Store(away)
		return away
	}
	err := g.st.Change(ctx, func(tx store.Tx) error { return tx.SetMeta(ctx, metaProbe, strconv.FormatInt(now, 10)) })
	if err == nil {
		g.away.Store(nil)
		g.refusing.Store(false)
	}
	return refused(err != nil)
}

// metaProbe is what Ready reads and writes.
const metaProbe = "write_probe"

// refused is errRefusing if so.
func refused(so bool) error {
	if so {
		return errRefusing
	}
	return nil
}

// probeTimeout is how long Ready waits for the store.
const probeTimeout = 2 * time.Second

var errRefusing = fault.New(api.CodeUnavailable, "the last operation could not be recorded in the audit log, so nothing can be answered").
	WithNext("see that the store can be written: free some space, or repair its disk or network")

// stop ends all answering for good; the first reason stays.
func (g *Gate) stop(err error) {
	f := fault.Wrap(api.CodeUnavailable, err, "the audit log has stopped, nothing is answered any more").WithNext("start keyturn anew; see the log for the reason")
	if next := fault.NextOf(err); next != "" {
		f = f.WithNext(next)
	}
	if g.stopped.CompareAndSwap(nil, f) || g.stopped.CompareAndSwap(errNotStarted, f) {
		g.cfg.Log.Error("the audit log has stopped", "reason", fault.MessageOf(err))
	}
}
