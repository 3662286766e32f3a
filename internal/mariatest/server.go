package mariatest

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
	"syscall"

	"github.com/keyturn/keyturn/internal/proctest"
)

// account is who may do everything on a server made here.
const account = "keyturn"

// Server is one MariaDB. Its methods are safe for concurrent use, except Stop, Kill, Restart and Close, which belong to
// the test that owns it.
type Server struct {
	dir      string // holds data/, the socket and the log; removed by the guard
	port     int
	password string
	settings map[string]string
	user     *syscall.SysProcAttr // whom the server runs as
	server   string               // path of mariadbd
	install  string               // path of mariadb-install-db

	process *exec.Cmd     // nil when it doesn't run
	ended   chan struct{} // closed when process has ended

	guard *exec.Cmd // the shell that cleans up after us
	leash io.Closer // closing it tells the guard to do so
}

// guardScript waits until this process closes its end of the pipe or dies, then kills the server, waits until it is gone
// and removes its directory. The number of a process is in the file only while that process is ours and runs.
const guardScript = `read -r _
pid=$(cat "$0/pid" 2>/dev/null)
if [ -n "$pid" ]; then
	kill -KILL "$pid" 2>/dev/null
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
fi
rm -rf "$0"`

// New makes and starts a server; Close removes it. Tests call Start or Own instead.
func New(ctx context.Context, o Options) (*Server, error) {
	s := &Server{password: rand.Text(), settings: o.Settings}
	var err error
	if s.server, err = find("mariadbd"); err != nil {
		return nil, err
	}
	if s.install, err = find("mariadb-install-db"); err != nil {
		return nil, err
	}
	if s.user, err = unprivileged(); err != nil {
		return nil, err
	}
	if s.port, err = proctest.FreePort(); err != nil {
		return nil, err
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if err := s.leashGuard(); err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	for _, step := range []func(context.Context) error{s.makeData, s.Restart, s.makeAccount} {
		if err := step(ctx); err != nil {
			return nil, joinClose(err, s)
		}
	}
	return s, nil
}

// find is the path of one of the server's programs.
func find(program string) (string, error) {
	if p, err := exec.LookPath(program); err == nil {
		return p, nil
	}
	if p := filepath.Join("/usr/sbin", program); exists(p) {
		return p, nil
	}
	return "", errMissing
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// makeDir makes the directory, owned by the server's user. Socket paths are limited to 107 bytes, so it stays short.
func (s *Server) makeDir() error {
	base := os.TempDir()
	if len(base) > 60 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "ktmy")
	if err != nil {
		return err
	}
	s.dir = dir
	return s.give(dir)
}

// give makes the server's user the owner of a file.
func (s *Server) give(name string) error {
	if s.user.Credential == nil {
		return nil
	}
	return os.Chown(name, int(s.user.Credential.Uid), int(s.user.Credential.Gid))
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

// makeData makes the data directory, with the system's own tables and a root that comes in by the socket only. Nothing is
// read from the machine's configuration.
func (s *Server) makeData(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, s.install, "--no-defaults", "--datadir="+s.data(), "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M")
	cmd.SysProcAttr, cmd.Dir = s.user, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return nil
}

// makeAccount makes the user of the URLs; everybody else, root without a password first, goes.
func (s *Server) makeAccount(ctx context.Context) error {
	for _, statement := range []string{
		fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s'", account, s.password),
		fmt.Sprintf("GRANT ALL ON *.* TO %s@'%%' WITH GRANT OPTION", account),
	} {
		if err := s.execAs(ctx, "root", "", statement); err != nil {
			return err
		}
	}
	db, err := Open(s.URL("mysql"), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	var others string
	err = db.QueryRowContext(ctx, "SELECT GROUP_CONCAT(QUOTE(User), '@', QUOTE(Host)) FROM global_priv WHERE User NOT IN (?, 'mariadb.sys')", account).Scan(&others)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "DROP USER "+others)
	return err
}

// arguments are the server's command line.
func (s *Server) arguments() []string {
	settings := map[string]string{
		"datadir": s.data(), "socket": s.socket(), "port": strconv.Itoa(s.port), "bind-address": "127.0.0.1",
		"pid-file": filepath.Join(s.dir, "mariadbd.pid"), "log-error": s.log(), "skip-name-resolve": "",
		"innodb-buffer-pool-size": "128M", "innodb-log-file-size": "256M", "character-set-server": "utf8mb4", "max-connections": "100",
	}
	maps.Copy(settings, s.settings)
	args := []string{"--no-defaults"}
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		if v := settings[k]; v != "" {
			k += "=" + v
		}
		args = append(args, "--"+k)
	}
	return args
}

func (s *Server) data() string   { return filepath.Join(s.dir, "data") }
func (s *Server) socket() string { return filepath.Join(s.dir, "s") }
func (s *Server) log() string    { return filepath.Join(s.dir, "log") }
func (s *Server) pid() string    { return filepath.Join(s.dir, "pid") }

func joinClose(err error, s *Server) error {
	if cerr := s.Close(); cerr != nil {
		return fmt.Errorf("%w (and removing the server: %w)", err, cerr)
	}
	return err
}
