package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// patience is how long the server may take to start, recovery after a crash included, to stop or to be promoted; the machine may
// be busy.
const patience = 3 * time.Minute

// Restart starts a server that was stopped or killed, on the same data and port, and returns when it accepts
// connections. After a Kill, orphans of the old server hold its shared memory for a moment: it is tried again until
// they are gone.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := s.run(ctx, "pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-w", "start")
		if err == nil || !s.logSays("pre-existing shared memory block") && !s.logSays("is another postmaster") {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Stop ends the server in an orderly way: sessions are closed, a checkpoint is written.
func (s *Server) Stop(ctx context.Context) error {
	return s.run(ctx, "pg_ctl", "-D", s.data(), "-m", "fast", "-w", "stop")
}

// Kill is a crash: SIGQUIT to every process of the server, which exits without a checkpoint, so that Restart has to
// recover from the write-ahead log.
func (s *Server) Kill(ctx context.Context) error {
	return s.run(ctx, "pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "stop")
}

// Close stops the server and removes the cluster. A second call does nothing.
func (s *Server) Close() error {
	if s.leash == nil {
		return nil
	}
	err := s.leash.Close()
	s.leash = nil
	if werr := s.guard.Wait(); werr != nil {
		return werr
	}
	return err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// run runs one of the server's programs as the server's user; a failure carries what it said.
func (s *Server) run(ctx context.Context, program string, args ...string) error {
	if s.external != "" {
		return fmt.Errorf("%s: the server of KEYTURN_TEST_POSTGRES isn't ours to touch; use Own", program)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir = s.user, s.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.Env = append(cmd.Env, "LC_ALL=C", fmt.Sprintf("PGCTLTIMEOUT=%.0f", patience.Seconds()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s%s", program, err, out, s.logTail())
	}
	return nil
}

// writeFile writes a file that the server's user can read and nobody else.
func (s *Server) writeFile(name, text string) error {
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	if s.user.Credential != nil {
		return os.Chown(name, int(s.user.Credential.Uid), int(s.user.Credential.Gid))
	}
	return nil
}

func (s *Server) logSays(text string) bool { return strings.Contains(s.logTail(), text) }

// logTail is the end of the server's log, for the error of a start that failed.
func (s *Server) logTail() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
}
