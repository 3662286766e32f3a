// Package vaulttransit is the master-key provider for a key of the Transit secrets engine of HashiCorp Vault (1.13 and later) or
// OpenBao, which wraps for us and never shows its key:
//
//	vaulttransit:///MOUNT/KEY
//
// Every wrapping is bound to what it wraps: the binding goes to Vault as associated_data, the JSON object of
// keyring.Binding.Map with its names in order. Servers that don't know associated_data (Vault before 1.13) ignore it without a
// word, so Open wraps and opens a random value, and refuses the key unless opening it under another binding fails.
//
// The key must be of type aes256-gcm96, chacha20-poly1305 or xchacha20-poly1305, neither derived nor convergent. It may be
// rotated in Vault at any time: old wrappings open for as long as min_decryption_version allows, and `keyturn master rotate`
// wraps everything under the newest version.
//
// The key's fingerprint is made of the engine's UUID and the key's name, which stay when the server moves, the engine is moved,
// or the key is rotated; Vault tells nothing else of a key that would stay (the time at which version 1 was made disappears
// with min_decryption_version). A key that was deleted and made anew under its old name has the same fingerprint: the old
// wrappings don't open under it, and `keyturn master verify` says so.
//
// Where the server is and who we are stands in the environment: see package vault. docs/providers/vaulttransit.md has the
// policy.
package vaulttransit

import (
	"context"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/vault"
)

const scheme = "vaulttransit"

// Driver opens vaulttransit:// master keys. The zero value signs in by the process's environment.
type Driver struct {
	// Vault says how the server is reached, for tests.
	Vault vault.Config
}

// Scheme is "vaulttransit".
func (Driver) Scheme() string { return scheme }

// Open connects to the key and proves that it binds. Errors: invalid for the URL or the environment, not_found, wrong_state for
// a key that must not be used, denied, unavailable.
func (d Driver) Open(ctx context.Context, raw string) (keyring.MasterKey, error) {
	u, err := keyring.ParseURL(raw, scheme)
	if err != nil {
		return nil, err
	}
	path, ok := vault.ValidPath(u.EscapedPath())
	if !ok || raw != scheme+":///"+path {
		return nil, fault.New(api.CodeInvalid, "reading a master key's URL: after vaulttransit:/// stand a mount and a key's name").
			WithField(keyring.FieldURL).WithNext("write vaulttransit:///transit/keyturn")
	}
	ctx, cancel := context.WithTimeout(ctx, d.Vault.LimitOpen())
	defer cancel()
	client, err := vault.Dial(ctx, d.Vault)
	if err != nil {
		return nil, err
	}
	slash := strings.LastIndexByte(path, '/')
	k := &key{url: raw, client: client, mount: path[:slash], name: path[slash+1:]}
	if err := k.open(ctx); err != nil {
		_ = client.Close()
		return nil, err
	}
	return k, nil
}

// open looks at the key, makes its fingerprint and proves that it binds.
func (k *key) open(ctx context.Context) error {
	about, err := k.describe(ctx)
	if err != nil {
		return err
	}
	if err := about.usable(); err != nil {
		return err
	}
	engine, err := k.client.MountOf(ctx, k.mount)
	if err != nil {
		return fault.Wrap("", err, "looking for the Transit engine in Vault")
	}
	if engine.Type != "transit" || strings.TrimSuffix(engine.Path, "/") != k.mount {
		return fault.New(api.CodeInvalid, "opening the master key in Vault: what is mounted there is no Transit engine").WithNext("vault secrets list shows the mounts")
	}
	k.id = fingerprint(engine.UUID, k.name)
	return k.prove(ctx)
}
