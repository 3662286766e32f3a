//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"os"
	"sync"

	"github.com/keyturn/keyturn/internal/keyring"
)

// Driver opens pkcs11: master keys. There is one in a process, for modules are initialised once in it. Make it with New.
type Driver struct {
	// Lookup replaces os.LookupEnv, for tests.
	Lookup func(name string) (string, bool)

	modules modules

	// login is held while a PIN is sent to a token, and guards refused: PINs that a token refused, by token. See login.
	login   sync.Mutex
	refused map[string][32]byte
}

// New makes the driver.
func New() *Driver {
	return &Driver{Lookup: os.LookupEnv, modules: modules{load: load}, refused: map[string][32]byte{}}
}

// Scheme is "pkcs11".
func (*Driver) Scheme() string { return scheme }

// Canonical is the URL with its attributes in one order and spelling.
func (*Driver) Canonical(_ context.Context, raw string) (string, error) { return canonical(raw) }

// Open connects to the key. Errors: invalid for the URL, or a file that is no module; not_found for the module's file, the
// token, the key or the PIN; wrong_state for a key that could leave the token, for more than one key or token of a name,
// for files that others can change; denied for the PIN; unavailable.
func (d *Driver) Open(ctx context.Context, raw string) (keyring.MasterKey, error) {
	at, err := parse(raw)
	if err != nil {
		return nil, err
	}
	k := &key{driver: d, at: at, connecting: make(chan struct{}, 1)}
	if k.module, err = d.modules.use(at.module); err != nil {
		return nil, err
	}
	if k.now, err = k.connect(ctx); err != nil {
		k.module.release()
		return nil, err
	}
	k.id = k.now.id
	return k, nil
}
