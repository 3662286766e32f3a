package keyring

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// ParseURL reads a master-key URL for a driver. It refuses what no master key needs: user names, passwords, fragments,
// control characters. Errors are of code invalid and don't quote the URL, which might be a key pasted into the wrong place.
func ParseURL(raw, scheme string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme == "" || !strings.Contains(raw, "://"):
		return nil, badURL("it has no scheme like file:// or env://")
	case u.Scheme != scheme:
		return nil, badURL("its scheme isn't " + scheme)
	case u.User != nil || u.Fragment != "" || u.Opaque != "":
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
	scheme, _, ok := strings.Cut(raw, "://")
	i := slices.IndexFunc(drivers, func(d Driver) bool { return ok && d.Scheme() == scheme })
	if i < 0 {
		known := make([]string, len(drivers))
		for i, d := range drivers {
			known[i] = d.Scheme() + "://"
		}
		return nil, badURL("no provider has its scheme").WithNext("use one of " + strings.Join(known, ", "))
	}
	return drivers[i], nil
}

// OpenMasters opens every configured master key. Any one of them opens a store, so one that can't be opened now takes
// its place as a key that answers with its error, and [Ring.Verify] shows it; a URL that can't be right (malformed, of no
// provider) fails at once.
func OpenMasters(ctx context.Context, drivers []Driver, urls []string) ([]MasterKey, error) {
	masters := make([]MasterKey, 0, len(urls))
	for _, raw := range urls {
		d, err := DriverFor(drivers, raw)
		if err != nil {
			return nil, err
		}
		m, err := d.Open(ctx, raw)
		if err != nil && fault.FieldOf(err) == FieldURL {
			return nil, err
		}
		if err != nil {
			m = &unopened{url: raw, provider: d.Scheme(), err: err}
		}
		masters = append(masters, m)
	}
	return masters, nil
}

// FieldURL is the field of an error about a URL itself, which no waiting cures.
const FieldURL = "masterKeys"

func badURL(why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading a master key's URL: "+why).WithField(FieldURL).
		WithNext("write file:///path/to/key, env://NAME or escrow://")
}

// unopened stands for a configured master key that could not be opened.
type unopened struct {
	url, provider string
	err           error
}

func (u *unopened) URL() string      { return u.url }
func (u *unopened) Provider() string { return u.provider }
func (u *unopened) Kind() Kind       { return Holds }
func (u *unopened) ID() string       { return "" }
func (u *unopened) Close() error     { return nil }

func (u *unopened) Wrap(context.Context, *material.Bytes, Binding) ([]byte, error) {
	return nil, u.err
}

func (u *unopened) Unwrap(context.Context, []byte, Binding) (*material.Bytes, error) {
	return nil, u.err
}
