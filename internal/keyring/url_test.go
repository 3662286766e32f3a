package keyring_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// P3: a URL that can't be right is refused without being quoted: it may be a key in the wrong place.
func TestURLsAreRefusedUnquoted(t *testing.T) {
	const canary = "MDEyMzQ1Njc4OWFi"
	drivers := []keyring.Driver{absent{}}
	for _, raw := range []string{"", canary, "other://" + canary, "absent:" + canary, canary + "://absent", "absent://u:" + canary + "@x", "absent://x#" + canary,
		"absent://%zz" + canary, "absent://\n" + canary, "://" + canary, "ABSENT://" + canary} {
		for name, err := range map[string]error{
			"OpenURL":     second(keyring.OpenURL(t.Context(), drivers, raw)),
			"OpenMasters": second(keyring.OpenMasters(t.Context(), drivers, []string{"absent://fine", raw})),
		} {
			if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" {
				t.Errorf("%s, %q: %v", name, raw, err)
				continue
			}
			if strings.Contains(err.Error()+fault.NextOf(err), canary) {
				t.Errorf("%s, %q: quoted: %v, %s", name, raw, err, fault.NextOf(err))
			}
		}
	}
	if _, err := keyring.OpenURL(t.Context(), drivers, "absent://x"); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("the driver's own error: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
