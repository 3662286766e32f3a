//go:build !(pkcs11 && cgo && unix)

package pkcs11

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// Driver refuses pkcs11: URLs, for this binary has no PKCS#11 in it.
type Driver struct{}

// New makes the driver.
func New() Driver { return Driver{} }

// Scheme is "pkcs11".
func (Driver) Scheme() string { return scheme }

// Canonical is the URL with its attributes in one order and spelling.
func (Driver) Canonical(_ context.Context, raw string) (string, error) { return canonical(raw) }

// Open fails: with what is wrong with the URL, or because this binary lacks the provider ([keyring.ErrNotBuilt]). Both are
// errors about the URL ([keyring.FieldURL]), as no waiting cures them. Only the first keeps a store from being opened with
// another master key: whoever lost the other binary with the HSM's machine must get in by it.
func (Driver) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	return nil, refuse(raw)
}

// Generate fails as Open does.
func (Driver) Generate(_ context.Context, raw string) error { return refuse(raw) }

func refuse(raw string) error {
	if _, err := parse(raw); err != nil {
		return err
	}
	return fault.Wrap(api.CodeInvalid, keyring.ErrNotBuilt, "opening a PKCS#11 master key: this binary was built without PKCS#11 support").
		WithField(keyring.FieldURL).WithNext("build it with: make build-hsm")
}
