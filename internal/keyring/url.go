package keyring

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// ParseURL reads a master-key URL for a driver. It refuses what no master key needs: user names, passwords, fragments,
// control characters. After the scheme stands "//", or something that isn't a path (u.Opaque, with neither host nor path
// then) as in pkcs11:token=… of RFC 7512. Errors are of code invalid and don't quote the URL, which might be a key pasted
// into the wrong place.
func ParseURL(raw, scheme string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme == "":
		return nil, badURL("it has no scheme like file:// or env://")
	case u.Scheme != scheme:
		return nil, badURL("its scheme isn't " + scheme)
	case u.Opaque == "" && !strings.HasPrefix(raw[len(scheme):], "://"): // scheme:/path would be a second spelling of scheme:///path
		return nil, badURL("after its scheme stands ://")
	case u.User != nil || u.Fragment != "":
		return nil, badURL("it has a user name, a password or a fragment")
	}
	return u, nil
}

// OpenURL opens a master key by the driver of its scheme.
func OpenURL(ctx context.Context, drivers []Driver, raw string) (MasterKey, error) {
	d, err := DriverFor(drivers, raw)
	if err != nil {
		return nil, err
	}
	return d.Open(ctx, raw)
}

// DriverFor finds the driver of a URL's scheme.
func DriverFor(drivers []Driver, raw string) (Driver, error) {
	scheme, _, ok := strings.Cut(raw, ":")
	i := slices.IndexFunc(drivers, func(d Driver) bool { return ok && d.Scheme() == scheme })
	if i < 0 {
		known := make([]string, len(drivers))
		for i, d := range drivers {
			known[i] = d.Scheme() + ":"
		}
		return nil, badURL("no provider has its scheme").WithNext("use one of " + strings.Join(known, ", "))
	}
	return drivers[i], nil
}

// Canonical is a master key's URL as the key itself would spell it, so that the two can be compared also while its provider
// is away. What no driver can read stays as it is: it may be something else, a fingerprint for one.
func Canonical(ctx context.Context, drivers []Driver, raw string) string {
	d, err := DriverFor(drivers, raw)
	if err != nil {
		return raw
	}
	if s, ok := d.(Speller); ok {
		if canonical, err := s.Canonical(ctx, raw); err == nil {
			return canonical
		}
	}
	return raw
}

// ErrNotBuilt is the cause of a driver's error where this build of keyturn can't speak to the provider at all. Its URL may be
// right all the same.
var ErrNotBuilt = errors.New("this build has no such provider")

// OpenMasters opens every configured master key. Any one of them opens a store, so one that can't be opened now, or by this
// build, takes its place as a key that answers with its error, and [Ring.Verify] shows it; a URL that can't be right
// (malformed, of no provider) fails at once. So does a list of which this build can speak to no key that opens a store.
func OpenMasters(ctx context.Context, drivers []Driver, urls []string) ([]MasterKey, error) {
	masters := make([]MasterKey, 0, len(urls))
	for _, raw := range urls {
		d, err := DriverFor(drivers, raw)
		if err != nil {
			return nil, err
		}
		m, err := d.Open(ctx, raw)
		if err != nil && fault.FieldOf(err) == FieldURL && !errors.Is(err, ErrNotBuilt) {
			return nil, err
		}
		if err != nil {
			m = &unopened{url: Canonical(ctx, drivers, raw), provider: d.Scheme(), kind: kindOf(d.Scheme()), err: err}
		}
		masters = append(masters, m)
	}
	return masters, spoken(masters)
}

// spoken is nil when this build can speak to a master key that opens a store, whether that can be reached or not.
func spoken(masters []MasterKey) error {
	var lacking refusals
	for _, m := range masters {
		u, away := m.(*unopened)
		switch {
		case away && errors.Is(u.err, ErrNotBuilt):
			lacking.add(m, u.err)
		case Opens(m):
			return nil
		}
	}
	return lacking.err()
}

// refusals are why master keys don't open a store, each with its own reason: who has several can mend any one of them.
type refusals []refusal

type refusal struct {
	url string
	err error
}

func (r *refusals) add(m MasterKey, err error) { *r = append(*r, refusal{m.URL(), err}) }

// err is nil without a refusal, the only one's own error, and of several one that names each.
func (r refusals) err() error {
	if len(r) == 1 {
		return r[0].err
	}
	var all []error
	for _, one := range r {
		all = append(all, fault.Wrap("", one.err, "master key "+one.url))
	}
	return fault.Join(all...)
}

// Reopen tries again those of masters that could not be opened. It returns the list with the ones that can be now in their
// places, and whether there is any: then hand it to [Ring.Use].
func Reopen(ctx context.Context, drivers []Driver, masters []MasterKey) (next []MasterKey, changed bool) {
	next = slices.Clone(masters)
	for i, m := range next {
		if _, away := m.(*unopened); !away {
			continue
		}
		d, err := DriverFor(drivers, m.URL())
		if err != nil {
			continue
		}
		if fresh, err := d.Open(ctx, m.URL()); err == nil {
			next[i], changed = fresh, true
		}
	}
	return next, changed
}

// FieldURL is the field of an error about a URL itself, which no waiting cures.
const FieldURL = "masterKeys"

func badURL(why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading a master key's URL: "+why).WithField(FieldURL).
		WithNext("write file:///path/to/key, env://NAME, or what the page of another provider says")
}

// kindOf is the kind of a scheme's keys as far as it can be told without opening one: those of wrapping do that and no other.
func kindOf(scheme string) Kind {
	if slices.Contains(wrapping, scheme) {
		return Wraps
	}
	return Holds
}

// wrapping are the schemes whose providers never hand their key out.
var wrapping = []string{"awskms", "vaulttransit", "pkcs11"}

// unopened stands for a configured master key that could not be opened.
type unopened struct {
	url, provider string
	kind          Kind
	err           error
}

func (u *unopened) URL() string      { return u.url }
func (u *unopened) Provider() string { return u.provider }
func (u *unopened) Kind() Kind       { return u.kind }
func (u *unopened) ID() string       { return "" }
func (u *unopened) Close() error     { return nil }

func (u *unopened) Wrap(context.Context, *material.Bytes, Binding) ([]byte, error) {
	return nil, u.err
}

func (u *unopened) Unwrap(context.Context, []byte, Binding) (*material.Bytes, error) {
	return nil, u.err
}
