// Package keyring is custody: it holds the master keys that were configured, opens with any one of them the
// key-encryption keys (KEKs) of the store, and hands out versions of keys, unwrapped, by reference.
//
//	master key(s)  -- wrap -->  KEK (one per purpose)  -- wraps -->  version material  -- derives -->  per-message keys
//
// A master key comes from a driver, chosen by the scheme of its URL: keyring/file and keyring/env hold 32 bytes
// ([Holds]); a driver for a key management service sends KEKs to be wrapped and never sees its key ([Wraps]). A new
// driver implements [Driver] and [MasterKey] and runs keyringtest.Exercise; one over a network keeps to package
// keyring/remote, makes its blobs with [Commit] where it wraps, and runs keyringtest.ExerciseRemote.
//
//	masters, err := keyring.OpenMasters(ctx, drivers, urls)
//	ring := keyring.New(storeID, masters, source)
//	err = ring.Open(ctx)
//	key, err := ring.Lookup(ctx, "phi")            // metadata, cached
//	v, err := key.MayProtect(now)
//	sealer, err := ring.Version(ctx, key, v.Number) // unwrapped once, cached
//	blob, err := sealer.Seal(nil, plaintext, context)
//
// # What is bound
//
// Every wrapped blob carries a [Binding] as authenticated context: whose it is, what it is, which version, in which
// state, at which count of state changes. So no wrapped material can stand in for another row's, nor in a row that has
// moved on for its own past. The rows around it are bound by MACs ([Ring.MAC], see package kms); a row that is put back
// whole, with everything that belongs to it, is not found by either.
//
// # Order with the store
//
// Nothing here writes. NewKEKs, RewrapKEKs, Fill and Bind return or fill records that the caller stores in one
// transaction; only after its commit do Open, Use or Drop let the ring see them. So nothing protects data before it is
// durable (P1), and a crash in between leaves the store as it was.
package keyring

import (
	"context"
	"strconv"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// Kind says where wrapping happens.
type Kind string

// The kinds of master keys, as `master list` prints them.
const (
	Wraps Kind = "wraps" // the provider wraps; the key never comes to us
	Holds Kind = "holds" // the provider hands over 32 bytes, and we wrap

	// Escrow is a key whose custody is shares in the hands of people. It wraps and proves, with bytes that the store
	// itself keeps sealed, once the ring has been opened by another; it never opens a store ([Attacher]).
	Escrow Kind = "escrow"
)

// MasterKey is one configured master key. Implementations are safe for concurrent use.
type MasterKey interface {
	// URL is where the key was configured, in canonical form and without anything secret.
	URL() string
	// Provider is the name of the driver, for people: "file", "env".
	Provider() string
	Kind() Kind
	// ID is the key's stable fingerprint: the same whenever and from wherever the same key is opened, another for
	// another key. It isn't secret. Empty for a key that could not be opened.
	ID() string
	// Wrap seals m, which stays the caller's. Errors: unavailable, denied, cancelled.
	Wrap(ctx context.Context, m *material.Bytes, b Binding) ([]byte, error)
	// Unwrap opens what Wrap made under an equal binding; the result is the caller's to destroy. A blob that was changed,
	// or that belongs to another key or binding, is an error of code integrity.
	Unwrap(ctx context.Context, blob []byte, b Binding) (*material.Bytes, error)
	// Close forgets the key. It may be called twice; Wrap and Unwrap fail with unavailable afterwards.
	Close() error
}

// Attacher is what a master key of kind Escrow also is. Its URL gives no key: until bytes are attached its ID is empty,
// and Wrap and Unwrap fail. See [Ring.Attach].
type Attacher interface {
	MasterKey
	// Attach gives it its 32 bytes, of which it takes ownership, in the place of those that it had.
	Attach(m *material.Bytes) error
	// Detach takes them away; Wrap and Unwrap answer with why from then on.
	Detach(why error)
}

// Driver opens master keys of one URL scheme.
type Driver interface {
	Scheme() string
	// Open parses the URL and fetches the key or connects to it. Errors: invalid for the URL or the key's form,
	// not_found, wrong_state for a key that isn't kept safely, denied, unavailable. None quotes the key.
	Open(ctx context.Context, url string) (MasterKey, error)
}

// Speller is what a driver also is one of whose places can be spelled in several ways, or left to the environment in part.
type Speller interface {
	// Canonical is the URL that a key opened by raw would have. The provider isn't asked.
	Canonical(ctx context.Context, raw string) (string, error)
}

// Generator is what a driver also is when it can make a new master key where its URL says.
type Generator interface {
	// Generate makes a new random key, durable when it returns. It refuses with conflict to replace anything.
	Generate(ctx context.Context, url string) error
}

// Source is what the ring reads from the store. A missing key is a fault with code not_found.
type Source interface {
	KEKs(ctx context.Context) ([]keys.KEK, error)
	KeyByID(ctx context.Context, id envelope.KeyID) (keys.Key, error)
	KeyByName(ctx context.Context, name string) (keys.Key, error)
}

// Binding is what a wrapped blob is tied to. Two bindings that differ in any field don't open each other's blobs.
type Binding struct {
	Tenant  string // the store's id
	Kind    string // what is wrapped: "key-version", "kek/data", "audit-key", "dataset-dsn" …
	ID      string // of the thing
	Version uint32
	State   string
	Seq     uint32 // count of the thing's state changes
}

// Context is the binding in canonical form, for suites of package envelope.
func (b Binding) Context() (envelope.Context, error) {
	return envelope.NewContext(b.Map())
}

// Map is the binding as strings, as providers with an encryption context of their own take it.
func (b Binding) Map() map[string]string {
	return map[string]string{
		"tenant":  b.Tenant,
		"kind":    b.Kind,
		"id":      b.ID,
		"version": strconv.FormatUint(uint64(b.Version), 10),
		"state":   b.State,
		"seq":     strconv.FormatUint(uint64(b.Seq), 10),
	}
}
