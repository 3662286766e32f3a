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
	for _, raw := range []string{"", canary, "other://" + canary, "absent:/" + canary, canary + "://absent", "absent://u:" + canary + "@x", "absent://x#" + canary,
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

// What stands behind a scheme may be other than a path (RFC 7512); a path has one spelling, with //.
func TestURLForms(t *testing.T) {
	for raw, want := range map[string]string{
		"absent://host/path?a=b": " host /path a=b", "absent:///path": "  /path ", "absent:token=a%20b;object=c?module-path=/x": "token=a%20b;object=c   module-path=/x",
	} {
		u, err := keyring.ParseURL(raw, "absent")
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if got := strings.Join([]string{u.Opaque, u.Host, u.Path, u.RawQuery}, " "); got != want {
			t.Errorf("%s: read as %q, want %q", raw, got, want)
		}
		if d, err := keyring.DriverFor([]keyring.Driver{absent{}}, raw); err != nil || d.Scheme() != "absent" {
			t.Errorf("%s: driver %v, %v", raw, d, err)
		}
	}
	for _, raw := range []string{"absent:", "absent:/path", "absent:/", "absent", "absent:?x=y", "absent:#x"} {
		if _, err := keyring.ParseURL(raw, "absent"); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// A place that can be spelled in several ways has one name, also while nothing can be opened there; what is no URL of a
// driver's stays as it is.
func TestCanonical(t *testing.T) {
	for raw, want := range map[string]string{
		"absent://x?again": "absent://x", "absent://x": "absent://x", "absent:/x?again": "absent:/x?again", "other://x?again": "other://x?again", "0123abcd": "0123abcd", "": "",
	} {
		if got := keyring.Canonical(t.Context(), []keyring.Driver{spelled{}}, raw); got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
	if got := keyring.Canonical(t.Context(), []keyring.Driver{absent{}}, "absent://x?again"); got != "absent://x?again" {
		t.Errorf("of a driver with one spelling: %q", got)
	}
	masters, err := keyring.OpenMasters(t.Context(), []keyring.Driver{spelled{}}, []string{"absent://x?again"})
	if err != nil || len(masters) != 1 || masters[0].URL() != "absent://x" {
		t.Errorf("one that is away: %v, %v", masters, err)
	}
}

func second[T any](_ T, err error) error { return err }
