package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/internal/proctest"
)

// superuser is the owner of every cluster made here.
const superuser = "keyturn"

// Server is one cluster. Its methods are safe for concurrent use, except Stop, Kill, Restart and Close, which belong to
// the test that owns it.
type Server struct {
	external string // KEYTURN_TEST_POSTGRES; every other field is empty then

	bin      string // directory of the server's programs
	dir      string // holds data/, the socket and the log; removed by the guard
	port     int    // names the socket, and is the TCP port if tcp
	tcp      bool
	password string
	user     *syscall.SysProcAttr // whom the server runs as

	guard *exec.Cmd // the shell that cleans up after us
	leash io.Closer // closing it tells the guard to do so
}

// guardScript waits until this process closes its end of the pipe or dies, then stops the server without mercy, waits
// until it is gone and removes its directory.
const guardScript = `read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
	kill -QUIT "$pid" 2>/dev/null
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
fi
rm -rf "$0"`

// New makes and starts a cluster; Close removes it. Tests call Start or Own instead.
func New(ctx context.Context, o Options) (*Server, error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, port: 5432, tcp: o.TCP, password: rand.Text()}
	if s.user, err = unprivileged(); err != nil {
		return nil, err
	}
	if o.TCP {
		if s.port, err = proctest.FreePort(); err != nil {
			return nil, err
		}
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if err := s.leashGuard(); err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	if err := s.initdb(ctx, o.Settings); err != nil {
		return nil, joinClose(err, s)
	}
	if err := s.Restart(ctx); err != nil {
		return nil, joinClose(err, s)
	}
	return s, nil
}

// findBinaries is the directory of the newest installed server, or that of a pg_ctl in PATH.
func findBinaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_ctl")
	if err != nil {
		return "", err
	}
	major := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p)))) // not a number: an odd directory, sorted first
		return n
	}
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if p, err := exec.LookPath("pg_ctl"); err == nil {
		return filepath.Dir(p), nil
	}
	return "", errMissing
}

// makeDir makes the directory, owned by the server's user. Socket paths are limited to 107 bytes, so it stays short.
func (s *Server) makeDir() error {
	base := os.TempDir()
	if len(base) > 60 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "ktpg")
	if err != nil {
		return err
	}
	s.dir = dir
	if s.user.Credential != nil {
		return os.Chown(dir, int(s.user.Credential.Uid), int(s.user.Credential.Gid))
	}
	return nil
}

// leashGuard starts the shell of guardScript in its own process group, so that a Ctrl-C at the test leaves it alive.
func (s *Server) leashGuard() error {
	s.guard = exec.Command("/bin/sh", "-c", guardScript, s.dir)
	attr := *s.user
	attr.Setpgid = true
	s.guard.SysProcAttr, s.guard.Dir = &attr, "/"
	leash, err := s.guard.StdinPipe()
	if err != nil {
		return err
	}
	s.leash = leash
	return s.guard.Start()
}

// initdb makes the data directory. It isn't synced: a power cut of this machine ends the test anyway.
func (s *Server) initdb(ctx context.Context, settings map[string]string) error {
	pwfile := filepath.Join(s.dir, "pw")
	if err := s.writeFile(pwfile, s.password); err != nil {
		return err
	}
	if err := s.run(ctx, "initdb", "-D", s.data(), "-U", superuser, "--pwfile", pwfile, "--auth-local=trust",
		"--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	conf := map[string]string{
		"listen_addresses": "", "port": strconv.Itoa(s.port), "unix_socket_directories": s.dir,
		"shared_buffers": "64MB", "max_connections": "100",
	}
	if s.tcp {
		conf["listen_addresses"] = "127.0.0.1"
	}
	maps.Copy(conf, settings)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(conf[k], "'", "''"))
	}
	return s.writeFile(filepath.Join(s.data(), "postgresql.auto.conf"), b.String())
}

func joinClose(err error, s *Server) error {
	if cerr := s.Close(); cerr != nil {
		return fmt.Errorf("%w (and removing the cluster: %w)", err, cerr)
	}
	return err
}
