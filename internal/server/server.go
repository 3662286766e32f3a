package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/httpapi"
	"github.com/keyturn/keyturn/internal/incident"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/runner"
)

// Options say how a store is opened. The zero value is right for a command.
type Options struct {
	Command  string         // what whoever finds the directory held is told; no values. Default "keyturn"
	Set      map[string]any // flags, by configuration key: {"listen": []string{…}}; they win over everything
	Embedded bool           // this is somebody else's program: its process is left as it is (no hardening)
	Environ  []string       // default: os.Environ()
	LogTo    io.Writer      // where log lines go, in the form of the configuration; default: nowhere
	Log      *slog.Logger   // a logger of the caller's own, which wins over LogTo and the configuration
	Clock    func() time.Time
	Elapsed  func() time.Duration // time since some moment that nobody can set; default: Clock's own monotonic readings
	LockWait time.Duration        // how long to wait for another holder of the directory; default 5 s
	// AcceptRows, a reason, takes the store's signed rows for right as they stand, although their sums or a checkpoint say that they
	// were put back, taken away or added. It is recorded as an alert. Empty: such a store isn't opened.
	AcceptRows string
	// AcceptClock, a reason, takes the machine's clock for right although later times were seen: those were wrong then. It is
	// recorded. Empty: what expired by them stays expired.
	AcceptClock string
}

func (o Options) withDefaults() Options {
	if o.Command == "" {
		o.Command = "keyturn"
	}
	o.Environ = environOr(o.Environ)
	if o.LogTo == nil {
		o.LogTo = io.Discard
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.LockWait == 0 {
		o.LockWait = lockWait
	}
	return o
}

func environOr(environ []string) []string {
	if environ == nil {
		return os.Environ()
	}
	return environ
}

// Server is one open data directory with everything that answers requests on it. It is safe for concurrent use.
type Server struct {
	dir  string
	opts Options
	cfg  Config
	log  *slog.Logger
	time *clock.Clock // opts.Clock, but it doesn't go back: for everything that expires or falls due

	// The rooms, in the order in which they were opened; Close goes backwards.
	lock      *dirLock
	store     *kms.Attested
	ring      *keyring.Ring
	gate      *gate.Gate
	auditKey  string // the log's public key
	runner    *runner.Runner
	kms       *kms.Service
	datasets  *reencrypt.Service
	rotation  *rotation.Service
	incidents *incident.Service
	api       *httpapi.API
	signIns   authn.Generation
	local     *authn.Local
	started   time.Time
	alone     bool // no node of an earlier release, which keeps no sums of rows, runs on the store

	ready chan struct{} // closed when Serve listens
	tls   *tls.Config   // of the https listeners; set by Serve
	work  sync.Once     // starts the runner

	mu        sync.Mutex // guards what follows
	listening []string
	closed    bool
	calls     int           // requests in process that are being answered
	idle      chan struct{} // closed when closed and calls is 0
	working   sync.WaitGroup
	deaf      context.CancelFunc // ends listening to other nodes; set by openServices

	closing  sync.Once
	closeErr error
}

// Open opens a data directory that Init made. It returns when requests can be answered. Errors: not_found where no store
// is, busy while another process holds the directory, invalid for the configuration, integrity for a wrong master key
// or a store that isn't what its checkpoints say, denied, unavailable.
func Open(ctx context.Context, dir string, opts Options) (*Server, error) {
	if err := harden(opts.Embedded); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Wrap(api.CodeInvalid, err, "finding the data directory").WithField("dir")
	}
	s := &Server{dir: dir, opts: opts.withDefaults(), idle: make(chan struct{}), ready: make(chan struct{})}
	s.time = clock.New(s.opts.Clock, s.opts.Elapsed)
	s.log, s.started = slog.New(slog.DiscardHandler), s.opts.Clock().UTC()
	if err := s.open(ctx); err != nil {
		_ = s.Close(context.WithoutCancel(ctx)) // what was opened so far; the first error is the one that counts
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.openDirectory, s.openStore, s.openKeys, s.openServices} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// openDirectory takes the lock, and only then reads what lies in the directory.
func (s *Server) openDirectory(ctx context.Context) (err error) {
	if err := openDir(s.dir, false); err != nil {
		return err
	}
	if !exists(filepath.Join(s.dir, ConfigFile)) {
		return fault.New(api.CodeNotFound, "opening the data directory: there is no "+ConfigFile+" in it").WithField("dir").
			WithNext("make a store there: keyturn init; or name another directory: --dir DIR")
	}
	if s.lock, err = lockDir(ctx, s.dir, s.opts.Command, s.opts.LockWait); err != nil {
		return err
	}
	removeLeftovers(s.dir)
	if s.cfg, err = LoadConfig(s.dir, s.opts.Environ, s.opts.Set); err != nil {
		return err
	}
	if err := closeFiles(s.dir, s.cfg.MasterKeys); err != nil {
		return err
	}
	if s.cfg.Node == "" {
		s.cfg.Node = hostname()
	}
	if s.log = s.opts.Log; s.log == nil {
		s.log = newLogger(s.opts.LogTo, s.cfg.Log)
	}
	return nil
}

func (s *Server) openStore(ctx context.Context) error {
	open, err := storeDriver(s.cfg.Store.Reveal())
	if err == nil {
		err = storeThere(s.dir, s.cfg.Store)
	}
	if err != nil {
		return err
	}
	st, err := open(ctx, s.dir, s.cfg.Store)
	if err != nil {
		return err
	}
	s.store = kms.Attest(st)
	return nil
}

func (s *Server) openKeys(ctx context.Context) error {
	masters, err := keyring.OpenMasters(ctx, masterDrivers, s.cfg.MasterKeys)
	if err != nil {
		return err
	}
	s.ring = keyring.New(s.store.ID(), masters, kms.Directory{Store: s.store})
	s.store.Under(s.ring)
	if err := s.ring.Open(ctx); err != nil {
		return err
	}
	seen, err := kms.SeenTime(ctx, s.store)
	if err != nil {
		return err
	}
	s.time.Raise(seen)
	setup := gateSetup{dir: s.dir, cfg: s.cfg, clock: s.time.Now, log: s.log}
	if s.opts.AcceptRows != "" {
		setup.acceptRows = s.store.AcceptRows
	}
	if s.gate, s.auditKey, err = openGate(ctx, setup, s.store, s.ring); err != nil {
		return err
	}
	if err := s.gate.Start(ctx); err != nil {
		return err
	}
	return s.openRows(ctx)
}

// openRows refuses a store whose signed rows aren't those that were last written.
func (s *Server) openRows(ctx context.Context) error {
	var err error
	if s.alone, err = s.store.CheckRows(ctx, s.time.Wall()); err != nil {
		return fault.Wrap("", err, "opening the store")
	}
	if !s.alone {
		s.log.Info("nodes of an earlier release still run: rows that are put back are noticed once they are gone", "checked", "at each start and health check")
	}
	return nil
}

// gateSetup is what the doorway takes over from the configuration.
type gateSetup struct {
	dir   string
	cfg   Config
	clock func() time.Time
	log   *slog.Logger

	acceptRows func(ctx context.Context, signed []uint64) error // nil: no
}

// openGate makes the doorway with the log's own keys, and gives the public one's text.
func openGate(ctx context.Context, in gateSetup, st *kms.Attested, ring *keyring.Ring) (*gate.Gate, string, error) {
	public, signer, err := auditSigner(ctx, ring, st)
	if err != nil {
		return nil, "", err
	}
	file := in.cfg.Audit.CheckpointFile
	if file == "" {
		file = filepath.Join(in.dir, CheckpointFile)
	}
	g, err := gate.New(gate.Config{
		Node: in.cfg.Node, Environment: in.cfg.Environment, Clock: in.clock, Key: public, Log: in.log,
		Outdated:       ring.Drop,
		SumCounts:      kms.SumCounts,
		AcceptRows:     in.acceptRows,
		CheckpointFile: file, CheckpointEvery: in.cfg.Audit.CheckpointEvery,
	}, st, signer)
	return g, public.String(), err
}

// hostname is this host's name, or "" where it has none.
func hostname() string {
	name, _ := os.Hostname() // only a name to show
	return name
}

// Handler answers requests of every listener.
func (s *Server) Handler() http.Handler { return s.api }

// Config is the configuration that the store was opened with.
func (s *Server) Config() Config { return s.cfg }

// Dir is the data directory, absolute.
func (s *Server) Dir() string { return s.dir }

// enter counts a request in process, unless the server is closing.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.calls++
	}
	return !s.closed
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.calls == 0 && s.closed {
		close(s.idle)
	}
}

// drain refuses new requests in process and waits for those that run.
func (s *Server) drain(ctx context.Context) {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	if first && s.calls == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	if s.api != nil {
		s.api.Drain()
	}
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
}

// startWork starts the job runner of this process, once. It doesn't wait for it: who calls may be inside a transaction.
func (s *Server) startWork() {
	s.work.Do(func() {
		s.working.Go(func() {
			if err := s.runner.Start(context.Background()); err != nil {
				s.log.Error("the job runner could not start", "reason", fault.MessageOf(err))
			}
		})
	})
}

// Close ends everything in the reverse order of its opening and lets go of the directory. Requests and chunks of jobs
// that run have until ctx ends, 10 s at most, to come to an end. A second call waits for the first and returns the same.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Server) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, graceTime)
	defer cancel()
	s.drain(ctx)
	if s.deaf != nil {
		s.deaf()
	}
	s.work.Do(func() {}) // whoever would start the runner now is too late
	s.working.Wait()
	var errs []error
	if s.runner != nil {
		errs = append(errs, s.runner.Stop(ctx))
	}
	final, cancelFinal := context.WithTimeout(context.WithoutCancel(ctx), graceTime) // the rest is short, and must be tried even when time is up
	defer cancelFinal()
	if s.kms != nil {
		errs = append(errs, s.kms.Close(final))
	}
	if s.api != nil {
		errs = append(errs, s.api.Close(final))
	}
	if s.gate != nil {
		errs = append(errs, s.gate.Close(final))
	}
	if s.ring != nil {
		errs = append(errs, s.ring.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	s.lock.release()
	return errors.Join(errs...)
}
