package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"sync"
)

// startDebug serves Go's profiles at the configured loopback address until ctx ends; without one it does nothing. Profiles
// hold functions, counts and sizes; the process's command line and the goroutines' full dump, which pprof would offer
// too, are left out.
func (s *Server) startDebug(ctx context.Context, background *sync.WaitGroup) error {
	if s.cfg.Debug.Listen == "" {
		return nil
	}
	l, err := s.listenPlain(address{scheme: "http", host: s.cfg.Debug.Listen})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	for _, name := range []string{"heap", "allocs", "mutex", "block", "threadcreate"} {
		mux.Handle("GET /debug/pprof/"+name, pprof.Handler(name))
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime, MaxHeaderBytes: headerBytes}
	background.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Warn("the debug listener ended", "error", err)
		}
	})
	background.Go(func() {
		<-ctx.Done()
		_ = srv.Close()
	})
	return nil
}
