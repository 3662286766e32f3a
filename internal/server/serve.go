package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/fault"
)

// newLogger writes lines as the configuration says. What goes into them never comes from a request's body or headers.
func newLogger(w io.Writer, cfg LogConfig) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // validated
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Serve listens at every configured address and at the directory's socket, runs jobs, and returns when ctx ends, after the
// requests that were being answered have been (10 s at most). It is called once. An address that can't be listened at is an error before
// anything is served. Close is still to be called.
func (s *Server) Serve(ctx context.Context) error {
	addresses, err := s.addresses()
	if err != nil {
		return err
	}
	if err := s.prepareTLS(addresses); err != nil {
		return err
	}
	listeners, err := s.listen(addresses)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	if err := s.rotation.Keep(ctx); err != nil {
		closeAll(listeners)
		return err
	}
	s.startWork()
	background.Go(func() { s.runner.KeepSchedules(running) })
	s.ring.Limit(s.cfg.Keys.MasterOutage)
	background.Go(func() { s.watchMasters(running) })
	background.Go(func() { s.watchClock(running) })
	background.Go(func() { s.watchDue(running) })
	background.Go(s.tuneMemory)
	if err := s.startDebug(running, &background); err != nil {
		closeAll(listeners)
		return err
	}
	return s.serve(ctx, listeners)
}

// busyGC is how much garbage a server lets gather before it collects, in percent of what is alive. A server's live heap is
// a few megabytes, of which Go's default of 100 would make dozens of collections a second under load.
const busyGC = 400

// tuneMemory gives back what starting used, and sets busyGC unless the environment says otherwise (GOGC).
func (s *Server) tuneMemory() {
	if s.opts.Embedded {
		return
	}
	debug.FreeOSMemory()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(busyGC)
	}
}

// serve runs one http.Server on all listeners until ctx ends or one of them fails.
func (s *Server) serve(ctx context.Context, listeners []net.Listener) error {
	srv := httpServer(s.api, s.tls, s.log)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }()
	}
	close(s.ready)
	s.log.Info("serving", "version", buildinfo.String(), "store", s.store.Describe(), "listen", s.Listening())
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case err = <-s.fenced(watching):
	}
	s.log.Info("stopping")
	s.api.Drain()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close() // whoever is still being answered is cut off; nothing was acknowledged to him
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fault.Wrap(api.CodeUnavailable, err, "serving")
	}
	return nil
}

// fencedEvery is how often is looked whether this node still has its part of the audit log.
const fencedEvery = time.Second

// fenced tells when another node has taken this one's part of the audit log over, because it was away for longer than its
// lease: paused, or cut off. Nothing is answered any more then, and only a new start helps, so the process ends.
func (s *Server) fenced(ctx context.Context) <-chan error {
	lost := make(chan error, 1)
	s.working.Go(func() {
		tick := time.NewTicker(fencedEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := s.gate.Err(); errors.Is(err, audit.ErrFenced) {
				lost <- err
				return
			}
		}
	})
	return lost
}

// addresses are those of the configuration, and the directory's own socket.
func (s *Server) addresses() ([]address, error) {
	own := address{scheme: "unix", path: filepath.Join(s.dir, SocketFile)}
	var out []address
	for _, text := range s.cfg.Listen {
		a, err := parseAddress(text)
		if err != nil {
			return nil, fault.Wrap(api.CodeInvalid, err, "reading an address to listen at: "+err.Error()).WithField("listen")
		}
		if a != own {
			out = append(out, a)
		}
	}
	if len(own.path) <= maxSocketLen {
		return append(out, own), nil
	}
	s.log.Warn("the data directory's path is too long for a socket; commands on this machine need --server", "limit", maxSocketLen)
	return out, nil
}

// listen opens all addresses or none.
func (s *Server) listen(addresses []address) (out []net.Listener, err error) {
	var texts []string
	for _, a := range addresses {
		l, err := transports[a.scheme](s, a)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, l)
		if a.scheme != "unix" {
			a.host = l.Addr().String() // the port that 0 became
		}
		texts = append(texts, a.String())
	}
	s.mu.Lock()
	s.listening = texts
	s.mu.Unlock()
	return out, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// Listening lists the addresses that are being listened at, with real ports; empty before Serve.
func (s *Server) Listening() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.listening)
}

// prepareTLS loads or makes the certificate, if any address needs one.
func (s *Server) prepareTLS(addresses []address) error {
	if !slices.ContainsFunc(addresses, func(a address) bool { return a.scheme == "https" }) {
		return nil
	}
	var cert tls.Certificate
	var err error
	if c := s.cfg.TLS; c.CertFile != "" {
		cert, err = loadPair(c.CertFile, c.KeyFile)
	} else {
		cert, err = privateCertificate(filepath.Join(s.dir, TLSDir), s.certificateNames(addresses), s.opts.Clock())
	}
	if err != nil {
		return err
	}
	s.tls = tlsConfig(cert)
	return nil
}

// certificateNames are the names under which clients may reach the server: those listened at, this host's, and the
// configured ones. An address of all interfaces stands for the loopback ones.
func (s *Server) certificateNames(addresses []address) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, s.cfg.TLS.Names...)
	for _, a := range addresses {
		if a.scheme != "https" {
			continue
		}
		host := (&url.URL{Host: a.host}).Hostname()
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() || host == "" {
			continue
		}
		names = append(names, host)
	}
	if host := hostname(); host != "" {
		names = append(names, host)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
