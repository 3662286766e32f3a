package connectortest

import (
	"context"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// KeySet is one key with its versions, in memory: what a run gets instead of a keyring. It is safe for concurrent use.
type KeySet struct {
	mu       sync.Mutex
	id       envelope.KeyID
	suite    envelope.Suite
	versions []*envelope.Key
	gone     []uint32
	spent    uint64
}

// NewKeySet makes a key with one version.
func NewKeySet(suite envelope.Suite) *KeySet {
	k := &KeySet{id: envelope.NewKeyID(), suite: suite}
	k.Rotate()
	return k
}

// Rotate adds a version, which protects from now on.
func (k *KeySet) Rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, err := envelope.NewKey(k.id, uint32(len(k.versions)+1), k.suite, "data", material.Random(envelope.KeySize))
	if err != nil {
		panic(err)
	}
	k.versions = append(k.versions, v)
}

// Destroy makes a version unusable.
func (k *KeySet) Destroy(version uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = append(k.gone, version)
}

// ID is the key's id.
func (k *KeySet) ID() envelope.KeyID { return k.id }

// Current is the newest version.
func (k *KeySet) Current() *envelope.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.versions[len(k.versions)-1]
}

// Opener is one version.
func (k *KeySet) Opener(_ context.Context, version uint32) (*envelope.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case version == 0 || int(version) > len(k.versions):
		return nil, fault.Newf(api.CodeNotFound, "opening version %d: there is none", version)
	case slices.Contains(k.gone, version):
		return nil, fault.Newf(api.CodeWrongState, "opening version %d: it is destroyed", version)
	}
	return k.versions[version-1], nil
}

// Newest is the number of versions.
func (k *KeySet) Newest(context.Context) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return uint32(len(k.versions)), nil
}

// Spend adds up.
func (k *KeySet) Spend(_ context.Context, operations, _ uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spent += operations
	return nil
}

// Spent is what was sealed so far.
func (k *KeySet) Spent() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spent
}
