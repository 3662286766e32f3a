package keyring_test

import (
	"context"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// absent is a provider that is away.
type absent struct{}

func (absent) Scheme() string { return "absent" }

func (absent) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	if _, err := keyring.ParseURL(raw, "absent"); err != nil {
		return nil, err
	}
	return nil, fault.New(api.CodeDenied, "opening the absent master key")
}

// spelled is absent with a second spelling of each place.
type spelled struct{ absent }

func (spelled) Canonical(_ context.Context, raw string) (string, error) {
	if _, err := keyring.ParseURL(raw, "absent"); err != nil {
		return "", err
	}
	return strings.TrimSuffix(raw, "?again"), nil
}

// unbuilt is a provider that this build can't speak to.
type unbuilt struct{}

func (unbuilt) Scheme() string { return "unbuilt" }

func (unbuilt) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	if _, err := keyring.ParseURL(raw, "unbuilt"); err != nil {
		return nil, err
	}
	return nil, fault.Wrap(api.CodeInvalid, keyring.ErrNotBuilt, "opening the unbuilt master key").WithField(keyring.FieldURL).WithNext("build it")
}

// forgetful is a master key that unwraps to other bytes than it wrapped.
type forgetful struct{ keyring.MasterKey }

func (forgetful) Unwrap(context.Context, []byte, keyring.Binding) (*material.Bytes, error) {
	return material.Random(32), nil
}
