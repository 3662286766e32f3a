package keyring

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
)

// lookupRef names a load of metadata. The generation is part of it, so that nobody joins a load that began before a
// drop.
type lookupRef struct {
	generation uint64
	name       string
	id         envelope.KeyID
}

// Lookup finds a key by name. The result is shared and must not be changed; it is as old as five seconds where another
// node changed the key and nobody said so, and never older than the last Drop on this one: who decides by it names its
// revision as a premise of what he does (gate.RestsOn). Unknown names are asked for every time.
func (r *Ring) Lookup(ctx context.Context, name string) (*keys.Key, error) {
	r.mu.RLock()
	s, ok := r.snapshots[r.names[name]]
	generation := r.generation
	r.mu.RUnlock()
	if ok && s.key.Name == name && time.Since(s.read) < maxAge {
		return s.key, nil
	}
	return r.lookup(ctx, lookupRef{generation: generation, name: name}, func(ctx context.Context) (keys.Key, error) {
		return r.src.KeyByName(ctx, name)
	})
}

// LookupID is Lookup by the id that ciphertexts carry.
func (r *Ring) LookupID(ctx context.Context, id envelope.KeyID) (*keys.Key, error) {
	r.mu.RLock()
	s, ok := r.snapshots[id]
	generation := r.generation
	r.mu.RUnlock()
	if ok && time.Since(s.read) < maxAge {
		return s.key, nil
	}
	return r.lookup(ctx, lookupRef{generation: generation, id: id}, func(ctx context.Context) (keys.Key, error) {
		return r.src.KeyByID(ctx, id)
	})
}

func (r *Ring) lookup(ctx context.Context, ref lookupRef, read func(context.Context) (keys.Key, error)) (*keys.Key, error) {
	return r.lookups.do(ctx, ref, func(ctx context.Context) (*keys.Key, error) {
		began := time.Now()
		k, err := read(ctx)
		if err != nil {
			return nil, err
		}
		r.keep(&k, ref.generation, began)
		return &k, nil
	})
}

// keep caches metadata, unless something was dropped since it was asked for.
func (r *Ring) keep(k *keys.Key, generation uint64, read time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != generation {
		return
	}
	if old, ok := r.snapshots[k.ID]; ok && old.key.Name != k.Name {
		delete(r.names, old.key.Name)
	}
	for id := range r.snapshots {
		if len(r.snapshots) < maxCached {
			break
		}
		r.dropLocked(id)
	}
	r.snapshots[k.ID] = snapshot{k, read}
	r.names[k.Name] = k.ID
}
