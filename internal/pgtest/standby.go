package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/proctest"
)

// Standby makes a second cluster that follows s by streaming replication, and returns when it has caught up with what is
// there now. With synchronous, every commit of s waits from then on until the standby has flushed it. It is removed like
// any other cluster, by Close.
func (s *Server) Standby(ctx context.Context, synchronous bool) (*Server, error) {
	f := &Server{bin: s.bin, tcp: s.tcp, password: s.password, user: s.user, port: s.port}
	var err error
	if f.tcp {
		if f.port, err = proctest.FreePort(); err != nil {
			return nil, err
		}
	}
	if err := f.makeDir(); err != nil {
		return nil, err
	}
	if err := f.leashGuard(); err != nil {
		os.RemoveAll(f.dir)
		return nil, err
	}
	if err := f.follow(ctx, s); err != nil {
		return nil, joinClose(err, f)
	}
	if synchronous {
		err = s.Exec(ctx, s.URL("postgres"), "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
	}
	if err == nil {
		err = s.awaitFollower(ctx, synchronous)
	}
	if err != nil {
		return nil, joinClose(err, f)
	}
	return f, nil
}

// follow copies the data of s and starts the copy as a standby.
func (f *Server) follow(ctx context.Context, s *Server) error {
	if err := f.run(ctx, "pg_basebackup", "-D", f.data(), "-h", s.dir, "-p", strconv.Itoa(s.port), "-U", superuser,
		"-R", "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(f.data(), "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "port = '%d'\nunix_socket_directories = '%s'\n", f.port, f.dir) // the last of two lines counts
	if cerr := conf.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return f.Restart(ctx)
}

// awaitFollower waits until a standby streams, as the kind of standby that is wanted.
func (s *Server) awaitFollower(ctx context.Context, synchronous bool) error {
	return s.await(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_replication
		WHERE state = 'streaming' AND (sync_state IN ('sync', 'quorum') OR NOT $1))`, synchronous)
}

// await asks until a query says true.
func (s *Server) await(ctx context.Context, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		var so bool
		if err := conn.QueryRow(ctx, query, args...).Scan(&so); err != nil || so {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Promote makes a standby a primary of its own, and returns when it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	return s.run(ctx, "pg_ctl", "-D", s.data(), "-w", "promote")
}

// Unfollow ends the standby's replication: what its primary commits from now on doesn't reach it. The server is told by a signal, and
// is through with it when nothing of it receives any more.
func (s *Server) Unfollow(ctx context.Context) error {
	if err := s.Exec(ctx, s.URL("postgres"), "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return s.await(ctx, `SELECT NOT EXISTS (SELECT 1 FROM pg_stat_wal_receiver)`)
}

// Address is host and port of a server with TCP.
func (s *Server) Address() string { return proctest.Loopback(s.port) }
