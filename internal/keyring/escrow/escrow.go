// Package escrow is the master-key provider for a key that nobody has: escrow://. Its 32 bytes were made at random, split
// into shares that people keep (keyturn escrow split), and any k of these n people give it back on the day on which every
// other master key is gone (keyturn escrow combine). What they get is an ordinary master key in a file.
//
// A running store needs the key too, to wrap new key-encryption keys under it and to prove that all of them open with
// it. So the store keeps it sealed under its own KEK for recovery, and the ring attaches it once another master key has
// opened the store ([keyring.Ring.Attach]). Until then, and in a store of which no shares were made, the key of this
// driver answers every call with an error that says what to do. docs/decisions has the reasons.
//
//	k, err := escrow.Driver{}.Open(ctx, "escrow://")       // k.ID() == ""
//	err = ring.Attach(ctx, k.(keyring.Attacher), set, sealed)
package escrow

import (
	"context"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// provider is what `master list` calls it.
const provider = "escrow"

// errDetached is what an escrow key answers that nothing was attached to.
var errDetached = fault.New(api.CodeUnavailable, "using the escrow key: its bytes are not here, only its shares are, with people").
	WithNext("make shares of a store that is open: keyturn escrow split; to open one with shares: keyturn escrow combine")

// Driver names the escrow key. The zero value is ready.
type Driver struct{}

// Scheme is "escrow".
func (Driver) Scheme() string { return "escrow" }

// Open gives the key without its bytes. Errors: invalid for any URL but escrow://.
func (Driver) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	if _, err := keyring.ParseURL(raw, "escrow"); err != nil {
		return nil, err
	}
	if raw != keyring.EscrowURL {
		return nil, fault.New(api.CodeInvalid, "reading a master key's URL: nothing stands after escrow://").
			WithField(keyring.FieldURL).WithNext("write " + keyring.EscrowURL)
	}
	return &Key{why: errDetached}, nil
}

// Key is the escrow key of a store. It is safe for concurrent use.
type Key struct {
	mu   sync.RWMutex // guards what follows; not held while wrapping
	held keyring.MasterKey
	why  error // why there is no held
}

var _ keyring.Attacher = (*Key)(nil)

// URL is escrow://.
func (k *Key) URL() string { return keyring.EscrowURL }

// Provider is "escrow".
func (k *Key) Provider() string { return provider }

// Kind is keyring.Escrow.
func (k *Key) Kind() keyring.Kind { return keyring.Escrow }

// ID is the fingerprint of the attached bytes, empty without any.
func (k *Key) ID() string {
	held, err := k.attached()
	if err != nil {
		return ""
	}
	return held.ID()
}

// Attach implements keyring.Attacher.
func (k *Key) Attach(m *material.Bytes) error {
	held, err := keyring.Hold(keyring.EscrowURL, provider, m)
	if err != nil {
		return err
	}
	k.set(held, nil)
	return nil
}

// Detach implements keyring.Attacher. Without a reason it answers as before anything was attached.
func (k *Key) Detach(why error) {
	if why == nil {
		why = errDetached
	}
	k.set(nil, why)
}

// set replaces the attached key and forgets the one before. Who is wrapping under that one just now gets an error.
func (k *Key) set(held keyring.MasterKey, why error) {
	k.mu.Lock()
	before := k.held
	k.held, k.why = held, why
	k.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
}

func (k *Key) attached() (keyring.MasterKey, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.held == nil {
		return nil, k.why
	}
	return k.held, nil
}

// Wrap implements keyring.MasterKey.
func (k *Key) Wrap(ctx context.Context, m *material.Bytes, b keyring.Binding) ([]byte, error) {
	held, err := k.attached()
	if err != nil {
		return nil, err
	}
	return held.Wrap(ctx, m, b)
}

// Unwrap implements keyring.MasterKey.
func (k *Key) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	held, err := k.attached()
	if err != nil {
		return nil, err
	}
	return held.Unwrap(ctx, blob, b)
}

// Close forgets the bytes.
func (k *Key) Close() error {
	k.Detach(fault.New(api.CodeUnavailable, "using the escrow key: it was closed"))
	return nil
}
