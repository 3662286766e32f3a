package keyring_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/escrow"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
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

// A master key whose provider this build lacks is away like any other: another one opens the store. Where there is none, that is
// told at once, and of several by name; a URL that can't be right is refused in any build.
func TestProvidersThatThisBuildLacks(t *testing.T) {
	drivers := []keyring.Driver{absent{}, unbuilt{}, escrow.Driver{}}
	for _, c := range []struct{ urls, names []string }{
		{[]string{"unbuilt://a"}, nil}, {[]string{"unbuilt://a", "escrow://"}, nil}, {[]string{"unbuilt://a", "unbuilt://b"}, []string{"unbuilt://a", "unbuilt://b"}},
	} {
		_, err := keyring.OpenMasters(t.Context(), drivers, c.urls)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) != "build it" || !strings.Contains(err.Error(), "the unbuilt master key") {
			t.Errorf("%v: %v, next %q", c.urls, err, fault.NextOf(err))
		}
		for _, name := range c.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %s isn't named in %v", c.urls, name, err)
			}
		}
	}
	if _, err := keyring.OpenMasters(t.Context(), drivers, []string{"absent://a", "unbuilt:/a"}); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a URL that is wrong in any build: %v", err)
	}
	masters, err := keyring.OpenMasters(t.Context(), drivers, []string{"unbuilt://a", "absent://b"})
	if err != nil {
		t.Fatal(err)
	}
	own := keyringtest.Master(t, "own")
	src := &keyringtest.Source{}
	keyringtest.NewRing(t, src, own)
	all := append(masters, own)
	for i, m := range keyring.New(keyringtest.Tenant, all, src).Verify(t.Context()) {
		if m.OK != (i == 2) || i == 0 && !strings.Contains(fault.MessageOf(m.Err), "the unbuilt master key") {
			t.Errorf("%s: %v, %v", m.URL, m.OK, m.Err)
		}
	}
	if err := keyring.New(keyringtest.Tenant, all, src).Open(t.Context()); err != nil {
		t.Error(err)
	}
	// None opens it: each is named, with its reason and what helps.
	err = keyring.New(keyringtest.Tenant, append(masters, keyringtest.Master(t, "stranger")), src).Open(t.Context())
	text := fault.MessageOf(err) + fault.NextOf(err)
	for _, want := range []string{"unbuilt://a: opening the unbuilt", "absent://b: opening the absent", "held://stranger: the store isn't wrapped under it", "build it", "configure one of: held://own"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q isn't in %q, next %q", want, err, fault.NextOf(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }
