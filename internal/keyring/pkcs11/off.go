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

// Open fails: with what is wrong with the URL, or because this binary lacks the provider. Both are errors about the URL
// ([keyring.FieldURL]): no waiting cures them, so a server that was configured for an HSM doesn't start on whatever other
// master key it has.
func (Driver) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	return nil, refuse(raw)
}

// Generate fails as Open does.
func (Driver) Generate(_ context.Context, raw string) error { return refuse(raw) }

func refuse(raw string) error {
	if _, err := parse(raw); err != nil {
		return err
	}
	return fault.New(api.CodeInvalid, "opening a PKCS#11 master key: this binary was built without PKCS#11 support").
		WithField(keyring.FieldURL).WithNext("build it with: make build-hsm")
}
