package mariatest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// startTimeout is how long a start may take, recovery after a crash included; the machine may be busy.
const startTimeout = 3 * time.Minute

// Restart starts a server that was stopped or killed, on the same data and port, and returns when it accepts connections.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := exec.Command(s.server, s.arguments()...)
	attr := *s.user
	attr.Setpgid = true // a Ctrl-C is for the test, which stops the server
	cmd.SysProcAttr, cmd.Dir = &attr, s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // none of the machine's MYSQL_… settings
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := s.writeFile(s.pid(), strconv.Itoa(cmd.Process.Pid)); err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	s.process, s.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // killed or stopped: whoever did it knows
		close(ended)
	}(s.ended)
	return s.awaitReady(ctx)
}

// awaitReady tries to connect until the server accepts it, or has ended.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", s.socket()); err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("mariadbd ended while it started\n%s", s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("mariadbd: %w\n%s", ctx.Err(), s.logTail())
		}
	}
}

// Stop ends the server in an orderly way.
func (s *Server) Stop(ctx context.Context) error { return s.end(ctx, syscall.SIGTERM) }

// Kill is a crash: SIGKILL, so that Restart has to recover from the redo log.
func (s *Server) Kill(ctx context.Context) error { return s.end(ctx, syscall.SIGKILL) }

// end sends a signal to the process that Restart started, and waits until that has ended.
func (s *Server) end(ctx context.Context, signal syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.process = nil
	return os.Remove(s.pid())
}

// Running reports whether the server runs.
func (s *Server) Running() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Close kills the server and removes what it left. A second call does nothing.
func (s *Server) Close() error {
	if s.leash == nil {
		return nil
	}
	err := s.end(context.Background(), syscall.SIGKILL)
	if cerr := s.leash.Close(); err == nil {
		err = cerr
	}
	s.leash = nil
	if werr := s.guard.Wait(); werr != nil {
		return werr
	}
	return err
}

// writeFile writes a file that the server's user can read and nobody else.
func (s *Server) writeFile(name, text string) error {
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	return s.give(name)
}

// logTail is the end of the server's log, for the error of a start that failed.
func (s *Server) logTail() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-12):], []byte("\n")))
}
