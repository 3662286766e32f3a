package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/proctest"
)

// Server is one Vault. Its methods are safe for concurrent use, except Seal, Unseal and Close, which belong to the test that
// owns it.
type Server struct {
	Addr      string // host:port
	URL       string // as VAULT_ADDR wants it
	CA        string // file of the authority that signed its certificate; empty without TLS
	RootToken string

	dir, unsealKey string
	http           *http.Client
	guard          *exec.Cmd
	leash          io.Closer // closing it ends the server
}

// guardScript runs the server until this process closes its end of the pipe or dies, ends it without mercy (nothing that it
// holds is kept) and removes its directory. $0 is the directory, the arguments are the server's command.
const guardScript = `"$@" >"$0/log" 2>&1 </dev/null &
echo $! >"$0/pid.tmp" && mv "$0/pid.tmp" "$0/pid"
read -r _
kill -KILL $! 2>/dev/null
wait $! 2>/dev/null
rm -rf "$0"`

// readyWithin bounds a start; the machine may be busy.
const readyWithin = 2 * time.Minute

// New makes and starts a server; Close removes it. Tests call Start or Own instead.
func New(ctx context.Context, o Options) (*Server, error) {
	binary, err := Find()
	if err != nil {
		return nil, err
	}
	s := &Server{http: &http.Client{Transport: &http.Transport{}}}
	if s.dir, err = os.MkdirTemp("", "ktvault"); err != nil {
		return nil, err
	}
	if err := s.start(ctx, binary, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, binary string, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := s.configure(o); err != nil {
		return err
	}
	if err := s.leashGuard(binary); err != nil {
		return err
	}
	if err := s.listening(ctx); err != nil {
		return err
	}
	return s.initialise(ctx)
}

// configure chooses a port and writes the server's configuration. Nothing locks memory: it would need a privilege.
func (s *Server) configure(o Options) error {
	port, err := proctest.FreePort()
	if err != nil {
		return err
	}
	s.Addr = proctest.Loopback(port)
	s.URL, s.CA = "http://"+s.Addr, ""
	tlsLines := "tls_disable = true"
	if o.TLS {
		certificate, key, err := s.certify()
		if err != nil {
			return err
		}
		s.URL = "https://" + s.Addr
		tlsLines = fmt.Sprintf("tls_cert_file = %q\n  tls_key_file = %q", certificate, key)
	}
	return os.WriteFile(filepath.Join(s.dir, "vault.hcl"), fmt.Appendf(nil, `
disable_mlock = true
api_addr = %q
storage "file" {
  path = %q
}
listener "tcp" {
  address = %q
  %s
}
`, s.URL, filepath.Join(s.dir, "data"), s.Addr, tlsLines), 0o600)
}

// leashGuard starts the shell of guardScript in its own process group, so that a Ctrl-C at the test leaves it alive. The
// server's home is its own folder: it reads and writes nobody else's token file.
func (s *Server) leashGuard(binary string) error {
	s.guard = exec.Command("/bin/sh", "-c", guardScript, s.dir, binary, "server", "-config="+filepath.Join(s.dir, "vault.hcl"))
	s.guard.SysProcAttr, s.guard.Dir = &syscall.SysProcAttr{Setpgid: true}, "/"
	s.guard.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	leash, err := s.guard.StdinPipe()
	if err != nil {
		return err
	}
	s.leash = leash
	return s.guard.Start()
}

// listening waits until the server answers at all; it isn't initialised yet.
func (s *Server) listening(ctx context.Context) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err := s.call(ctx, http.MethodGet, "sys/seal-status", nil); err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for Vault at %s to answer: %w\n%s", s.Addr, ctx.Err(), s.logTail())
		}
	}
}

// PID is the server's process, for measurements; zero when it isn't known.
func (s *Server) PID() int {
	text, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// Dir is the server's own folder, removed with it: a place for an audit file.
func (s *Server) Dir() string { return s.dir }

// Close stops the server and removes its folder. A second call does nothing.
func (s *Server) Close() error {
	s.http.CloseIdleConnections()
	if s.leash == nil {
		return os.RemoveAll(s.dir)
	}
	err := s.leash.Close()
	s.leash = nil
	return errors.Join(err, s.guard.Wait())
}

// logTail is the end of the server's log, for the error of a start that failed.
func (s *Server) logTail() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-12):], []byte("\n")))
}
