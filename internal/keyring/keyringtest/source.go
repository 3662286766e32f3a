package keyringtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// Source is a store in memory, as far as a ring reads one. The zero value is empty and ready.
type Source struct {
	// Before, when set, is called before every read with what is read: "keks", "name phi", "id 00…". Its error is the
	// read's. It is set before the source is used.
	Before func(ctx context.Context, what string) error

	mu    sync.Mutex // guards what follows
	keks  map[keys.KEKID]keys.KEK
	keys  map[envelope.KeyID]keys.Key
	reads map[string]int
}

// PutKEKs stores KEKs as one transaction would.
func (s *Source) PutKEKs(records ...keys.KEK) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keks == nil {
		s.keks = map[keys.KEKID]keys.KEK{}
	}
	for _, k := range records {
		s.keks[k.ID] = k
	}
}

// DropKEK takes a KEK away, as somebody might who writes to the database.
func (s *Source) DropKEK(id keys.KEKID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keks, id)
}

// PutKey stores a copy of a key.
func (s *Source) PutKey(k keys.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[envelope.KeyID]keys.Key{}
	}
	s.keys[k.ID] = k.Clone()
}

// Reads is how often something was read; see Before for the names.
func (s *Source) Reads(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads[what]
}

func (s *Source) read(ctx context.Context, what string) error {
	s.mu.Lock()
	if s.reads == nil {
		s.reads = map[string]int{}
	}
	s.reads[what]++
	s.mu.Unlock()
	if s.Before != nil {
		return s.Before(ctx, what)
	}
	return ctx.Err()
}

// KEKs lists what PutKEKs stored.
func (s *Source) KEKs(ctx context.Context) ([]keys.KEK, error) {
	if err := s.read(ctx, "keks"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []keys.KEK
	for _, k := range s.keks {
		out = append(out, k)
	}
	return out, nil
}

// KeyByID finds what PutKey stored.
func (s *Source) KeyByID(ctx context.Context, id envelope.KeyID) (keys.Key, error) {
	if err := s.read(ctx, "id "+id.String()); err != nil {
		return keys.Key{}, err
	}
	return s.find(func(k keys.Key) bool { return k.ID == id })
}

// KeyByName finds what PutKey stored.
func (s *Source) KeyByName(ctx context.Context, name string) (keys.Key, error) {
	if err := s.read(ctx, "name "+name); err != nil {
		return keys.Key{}, err
	}
	return s.find(func(k keys.Key) bool { return k.Name == name })
}

func (s *Source) find(match func(keys.Key) bool) (keys.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if match(k) {
			return k.Clone(), nil
		}
	}
	return keys.Key{}, fault.New(api.CodeNotFound, "reading a key: there is none of that name")
}

// Tenant is the store id of the rings that NewRing makes.
const Tenant = "store-1"

// Master is a held master key, random unless bytes are given.
func Master(t testing.TB, name string, secret ...byte) keyring.MasterKey {
	t.Helper()
	m := material.Random(envelope.KeySize)
	if len(secret) > 0 {
		m = material.New(secret)
	}
	k, err := keyring.Hold("held://"+name, "held", m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// NewRing is an open ring over src with a KEK for every purpose, under the given masters or a random one.
func NewRing(t testing.TB, src *Source, masters ...keyring.MasterKey) *keyring.Ring {
	t.Helper()
	if len(masters) == 0 {
		masters = []keyring.MasterKey{Master(t, "one")}
	}
	r := keyring.New(Tenant, masters, src)
	made, err := r.NewKEKs(t.Context(), keys.KEKPurposes())
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// Rewrap wraps the KEKs of src under masters, and keeps what is wrapped under others. It stores nothing.
func Rewrap(t testing.TB, r *keyring.Ring, src *Source, masters ...keyring.MasterKey) ([]keys.KEK, error) {
	t.Helper()
	read, err := src.KEKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.RewrapKEKs(t.Context(), read, masters, keyring.Without(r.Masters(), masters))
}

// NewKey makes a key with one active version, filled by r and stored in src.
func NewKey(t testing.TB, r *keyring.Ring, src *Source, name string) keys.Key {
	t.Helper()
	k, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: name, Purpose: keys.PurposePHI}, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	Rotate(t, r, src, &k)
	return k
}

// Rotate gives k a new active version, binds the one before anew, stores the key and has r forget it.
func Rotate(t testing.TB, r *keyring.Ring, src *Source, k *keys.Key) {
	t.Helper()
	before := k.Clone()
	if _, err := k.Rotate(time.Unix(1_700_000_000, 0), "somebody", "test", 0); err != nil {
		t.Fatal(err)
	}
	for _, from := range before.Versions {
		if after, _ := k.Version(from.Number); after.Seq == from.Seq {
			continue
		}
		if err := r.Bind(t.Context(), k, from.Number, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Fill(t.Context(), k, uint32(len(k.Versions))); err != nil {
		t.Fatal(err)
	}
	src.PutKey(*k)
	r.Drop(k.ID)
}
