//go:build !(pkcs11 && cgo && unix)

package pkcs11

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// A binary without PKCS#11 says so; a store whose only way in is a master key in an HSM isn't opened, and one that has another
// is opened by that.
func TestWithoutSupport(t *testing.T) {
	const url = "pkcs11:token=t;object=k?module-path=/lib/x.so"
	_, opening := New().Open(t.Context(), url)
	_, several := keyring.OpenMasters(t.Context(), []keyring.Driver{New()}, []string{url})
	for name, err := range map[string]error{"Open": opening, "OpenMasters": several, "Generate": New().Generate(t.Context(), url)} {
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL ||
			!strings.Contains(err.Error(), "built without PKCS#11 support") || !strings.Contains(fault.NextOf(err), "make build-hsm") {
			t.Errorf("%s: %v, next %q", name, err, fault.NextOf(err))
		}
	}
	if !errors.Is(opening, keyring.ErrNotBuilt) {
		t.Error("another master key would not be asked")
	}
	if _, err := New().Open(t.Context(), "pkcs11:token=t"); err == nil || strings.Contains(err.Error(), "built without") {
		t.Errorf("a URL that is wrong anyway: %v", err)
	}
}
