package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/server"
)

// store is what a command works on. Whatever stands behind it, the Client is the same.
type store struct {
	*keyturn.Client
	embedded bool // this process itself holds the data directory, and runs its jobs
}

// open finds the store, in the order that the help text says: the named server; the server that runs on the data
// directory; the directory itself.
func (a *app) open(ctx context.Context) (*store, error) {
	opts := []keyturn.Option{keyturn.WithUserAgent("keyturn/" + buildinfo.String())}
	dir, err := a.directory()
	if err != nil {
		return nil, err
	}
	if address := fromEnv(a.server, "KEYTURN_SERVER"); address != "" {
		opts = append(opts, a.credentials()...)
		c, err := keyturn.Dial(address, append(opts, a.authority(dir, address)...)...)
		return &store{Client: c}, err
	}
	if socket := filepath.Join(dir, server.SocketFile); answers(socket) {
		c, err := keyturn.Dial("unix://"+socket, append(opts, a.credentials()...)...)
		return &store{Client: c}, err
	}
	return a.openDir(ctx, dir, append(opts, a.credentials()...), nil)
}

// commandGC is how much garbage a command lets gather, in percent of what is alive: less than Go's default of 100, so that the
// largest work, the re-encryption of a dataset, stays below 64 MB. A server sets its own (server.Server.Serve).
const commandGC = 70

// openDir opens the data directory in this process, and waits a moment when another command holds it. A token among opts
// decides who the caller is here too; without one he is the local administrator. set holds settings
// that go before those of the configuration, by their names in it.
func (a *app) openDir(ctx context.Context, dir string, opts []keyturn.Option, set map[string]any) (*store, error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(commandGC)
	}
	s, err := server.Open(ctx, dir, server.Options{Command: commandLine(), Set: set})
	if err != nil {
		return nil, err
	}
	closer := func() error { return s.Close(context.WithoutCancel(ctx)) }
	return &store{Client: keyturn.NewClient(s.InProcess(), append(opts, keyturn.WithCloser(closer))...), embedded: true}, nil
}

// directory is the data directory: --dir, KEYTURN_DIR, or the platform's place. It is absolute, so that what is shown and
// written of it stays true elsewhere.
func (a *app) directory() (string, error) {
	dir := fromEnv(a.dir, "KEYTURN_DIR")
	if dir == "" {
		return server.DefaultDir()
	}
	return filepath.Abs(dir)
}

// credentials are the token's options; a flag goes before the environment.
func (a *app) credentials() []keyturn.Option {
	if a.tokenFile != "" {
		return []keyturn.Option{keyturn.WithTokenFile(a.tokenFile)}
	}
	if token := os.Getenv("KEYTURN_TOKEN"); token != "" {
		return []keyturn.Option{keyturn.WithToken(token)}
	}
	if file := os.Getenv("KEYTURN_TOKEN_FILE"); file != "" {
		return []keyturn.Option{keyturn.WithTokenFile(file)}
	}
	return nil
}

// authority is whom to trust for an https address: --ca, KEYTURN_CA, else the private authority that a server on this
// machine made in the data directory, if there is one, else the system's.
func (a *app) authority(dir, address string) []keyturn.Option {
	if !strings.HasPrefix(address, "https://") {
		return nil
	}
	if file := fromEnv(a.ca, "KEYTURN_CA"); file != "" {
		return []keyturn.Option{keyturn.WithCAFile(file)}
	}
	own := filepath.Join(dir, server.TLSDir, server.CAFile)
	if _, err := os.Stat(own); err != nil {
		return nil
	}
	return []keyturn.Option{keyturn.WithCAFile(own)}
}

// answers says whether somebody listens at a socket. What a dead server left behind refuses the connection.
func answers(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// commandLine is what the next command is told when it finds the directory held: the words, no values.
func commandLine() string {
	words := []string{"keyturn"}
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(arg, "-") || len(words) == 3 {
			break
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
