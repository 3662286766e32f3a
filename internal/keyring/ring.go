package keyring

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
)

// Bounds of the caches. An entry over the bound replaces another at random: there is no order worth keeping for a
// cache that refills in microseconds.
const (
	maxAge      = 5 * time.Second // of metadata: how long another node's change may go unheard of here
	maxCached   = 20_000          // keys
	maxVersions = 20_000          // unwrapped versions
)

// Ring hands out keys. It is safe for concurrent use.
type Ring struct {
	tenant  string
	src     Source
	custody custody

	// mu guards everything below; it is never held while the store or a master key is asked.
	mu         sync.RWMutex
	generation uint64 // grows with every drop: what was loaded under an older one is not kept
	masters    []MasterKey
	keks       map[keys.KEKID]*openKEK
	active     map[keys.KEKPurpose]*openKEK
	snapshots  map[envelope.KeyID]snapshot
	names      map[string]envelope.KeyID
	versions   map[envelope.KeyID]map[uint32]unwrapped
	unwrapped  int // entries of versions

	lookups  flight[lookupRef, *keys.Key]
	unwraps  flight[unwrapRef, *envelope.Key]
	openings flight[uint64, struct{}]
	renewals flight[uint64, struct{}]
}

// snapshot is the metadata of a key as it was read; nobody changes what key points to.
type snapshot struct {
	key  *keys.Key
	read time.Time
}

// unwrapped is a version's key, together with the state sequence that its material was bound to when it was unwrapped:
// after a transition the material is unwrapped, and so verified, anew.
type unwrapped struct {
	key *envelope.Key
	seq uint32
}

// New makes a ring over the masters, in the order of the configuration: the first is asked first. The ring closes them.
// Before Open it can make KEKs and nothing else.
func New(tenant string, masters []MasterKey, src Source) *Ring {
	r := &Ring{tenant: tenant, src: src, masters: slices.Clone(masters)}
	r.forget()
	return r
}

// Masters lists the master keys in use.
func (r *Ring) Masters() []MasterKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.masters)
}

// Use replaces the master keys, once a transaction with the KEKs that RewrapKEKs made for them is committed, and opens
// the KEKs under them. Those that are not in use any more are closed; after an error the old ones stay.
func (r *Ring) Use(ctx context.Context, masters []MasterKey) error {
	opened, err := r.openWith(ctx, masters)
	if err != nil {
		return err
	}
	r.mu.Lock()
	old := r.masters
	r.masters = slices.Clone(masters)
	r.mu.Unlock()
	r.install(opened)
	r.custody.shut.Store(false)
	r.Confirm()
	for _, m := range old {
		if !slices.Contains(masters, m) {
			_ = m.Close() // nothing depends on it any more
		}
	}
	return nil
}

// Generation grows whenever something is dropped: whoever keeps what came from this ring compares it.
func (r *Ring) Generation() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.generation
}

// Drop forgets a key's metadata and its unwrapped versions. Call it after every committed change of a key; a call that
// begins afterwards sees the change. Messages in flight finish under the key that they hold.
func (r *Ring) Drop(id envelope.KeyID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generation++
	r.dropLocked(id)
}

func (r *Ring) dropLocked(id envelope.KeyID) {
	if s, ok := r.snapshots[id]; ok {
		delete(r.snapshots, id)
		delete(r.names, s.key.Name)
	}
	r.unwrapped -= len(r.versions[id])
	delete(r.versions, id)
}

// DropAll forgets every key. KEKs stay open.
func (r *Ring) DropAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
}

func (r *Ring) forget() {
	r.generation++
	r.snapshots = map[envelope.KeyID]snapshot{}
	r.names = map[string]envelope.KeyID{}
	r.versions, r.unwrapped = map[envelope.KeyID]map[uint32]unwrapped{}, 0
}

// Close forgets everything and closes the master keys. Keys that were handed out stop working.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, versions := range r.versions {
		for _, v := range versions {
			v.key.Destroy()
		}
	}
	for _, k := range r.keks {
		k.key.Destroy()
	}
	r.forget()
	r.keks, r.active = nil, nil
	var first error
	for _, m := range r.masters {
		if err := m.Close(); err != nil && first == nil {
			first = err
		}
	}
	r.masters = nil
	return first
}
