// Package embedded opens a keyturn store inside the calling program: no server, no network, one directory. It gives the
// same client that [keyturn.Dial] gives for a server, so a program that has outgrown its embedded store changes one line.
//
//	c, err := embedded.Open("/var/lib/myapp/keyturn")
//	if err != nil { … }
//	defer c.Close()
//	sealed, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: ssn, Context: map[string]string{"patient": "17"}})
//
// It lives apart from the SDK's own package so that a program which only dials doesn't link a server.
//
// # One process at a time
//
// The directory belongs to the process that opened it, until Close. Another one waits five seconds and is then told who
// holds it (code busy). For several processes on one machine run a server on the directory and dial its socket.
//
// # Who the caller is
//
// Whoever may open the directory could read all of it anyway, so calls are made as its administrator, and stand in the
// audit log as such with the method "embedded". What the surrounding program's users may do is that program's business.
//
// # What the process keeps to itself
//
// Open doesn't touch the process: core dumps and debuggers stay possible, as the program wants them. A program that
// handles secrets in earnest forbids them (prctl PR_SET_DUMPABLE, RLIMIT_CORE), as the keyturn binary does.
package embedded

import (
	"context"
	"log/slog"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
)

// Option changes how a store is opened or made.
type Option func(*options)

type options struct {
	create bool
	init   server.InitOptions
	open   server.Options
}

// Create makes the store first if the directory holds none: with a new master key in the file master.key in it, or with
// the ones that WithMasterKeys names.
func Create() Option { return func(o *options) { o.create = true } }

// WithMasterKeys names the master keys by URL ("env://NAME", "file:///PATH"), over what keyturn.yaml says.
func WithMasterKeys(urls ...string) Option {
	return func(o *options) {
		o.init.MasterKeys = urls
		o.open.Set["masterKeys"] = urls
	}
}

// WithStore names the store that Create makes: "sqlite" (the default) or a postgres:// URL.
func WithStore(url string) Option { return func(o *options) { o.init.Store = url } }

// WithLogger has the store's warnings and errors logged. No secret, no request content reaches it.
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.open.Log = log } }

// Open opens the store in a directory. The client's Close closes it and must be called: it gives reserved counters back,
// signs the audit log's end and frees the directory. A program that is killed instead loses nothing; the next Open takes
// up what it left.
//
// Errors carry the codes of package api: not_found where no store is (and Create wasn't said), busy while another process
// holds the directory, invalid, integrity, denied, unavailable.
func Open(dir string, opts ...Option) (*keyturn.Client, error) {
	return OpenContext(context.Background(), dir, opts...)
}

// OpenContext is Open with a context that can end the opening, the wait for another holder included. It has no bearing on
// the open store.
func OpenContext(ctx context.Context, dir string, opts ...Option) (*keyturn.Client, error) {
	o := options{
		init: server.InitOptions{Embedded: true},
		open: server.Options{Embedded: true, Command: "a program with an embedded store", Set: map[string]any{}},
	}
	for _, opt := range opts {
		opt(&o)
	}
	if o.create {
		if _, err := server.Init(ctx, dir, o.init); err != nil && keyturn.CodeOf(err) != api.CodeConflict {
			return nil, err
		}
	}
	s, err := server.Open(ctx, dir, o.open)
	if err != nil {
		return nil, err
	}
	return keyturn.NewClient(s.InProcess(), keyturn.WithCloser(func() error { return s.Close(context.Background()) })), nil
}
