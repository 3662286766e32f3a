// Package keyturntest gives the tests of programs that use keyturn a store of their own: a real one, with its files in a
// temporary directory, closed and removed when the test ends. What works against it works against a server.
//
//	func TestSave(t *testing.T) {
//		c := keyturntest.New(t, keyturntest.WithKey("phi"))
//		app := NewApp(c)
//		…
//	}
//
// Making a store takes a few tens of milliseconds, most of it fsyncs; a package with hundreds of tests shares one and
// gives each test a key of its own.
package keyturntest

import (
	"context"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
)

// Option changes the store that New makes.
type Option func(*options)

type options struct{ keys []string }

// WithKey makes a key with this name, so that the test needn't.
func WithKey(name string) Option { return func(o *options) { o.keys = append(o.keys, name) } }

// New makes a throw-away store and gives a client of it. It fails the test at once when it can't. The client is closed
// when the test has ended; closing it earlier does no harm.
func New(t testing.TB, opts ...Option) *keyturn.Client {
	t.Helper()
	_, c := NewDir(t, opts...)
	return c
}

// NewDir is New for tests that want the data directory too, e.g. to open it once more after closing the client.
func NewDir(t testing.TB, opts ...Option) (dir string, c *keyturn.Client) {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	dir = t.TempDir()
	c, err := embedded.Open(dir, embedded.Create())
	if err != nil {
		t.Fatalf("making a keyturn store for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing the test's keyturn store: %v", err)
		}
	})
	for _, name := range o.keys {
		if _, err := c.CreateKey(context.Background(), api.CreateKeyRequest{Name: name}); err != nil {
			t.Fatalf("making key %s for the test: %v", name, err)
		}
	}
	return dir, c
}
