package kms

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// node is another node on the same PostgreSQL store: its own ring, gate and service, with the first master key and others.
func (h *house) node(name string, urls ...string) *Service {
	h.t.Helper()
	st := h.openStore()
	signer, key := h.signer()
	masters := []keyring.MasterKey{masterKey(h.t, "first")}
	for _, url := range urls {
		m, err := h.config.Open(context.Background(), url)
		h.must(err)
		masters = append(masters, m)
	}
	ring := keyring.New(st.ID(), masters, Directory{st})
	st.Under(ring)
	h.must(ring.Open(context.Background()))
	own := clock.New(h.clock.Now, h.clock.Elapsed)
	seen, err := SeenTime(context.Background(), st)
	h.must(err)
	own.Raise(seen)
	g, err := gate.New(gate.Config{Node: name, Clock: own.Now, Key: key, CheckpointEvery: -1, Outdated: ring.Drop, SumCounts: SumCounts}, st, signer)
	h.must(err)
	h.must(g.Start(context.Background()))
	cfg := h.svc.cfg
	cfg.Gate, cfg.Store, cfg.Ring, cfg.Clock, cfg.Node = g, st, ring, own, name
	svc := New(cfg)
	h.t.Cleanup(func() { _ = svc.Close(context.Background()); _ = g.Close(context.Background()) })
	return svc
}

// Two nodes share a store: what one makes the other opens at once, though it remembers older metadata; a limit holds over
// both; and both can be asked to destroy.
func TestTwoNodes(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	other := h.node("other")
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "one", nil)
	if out, _, err := other.Decrypt(ctx, owner(), "phi", []byte(text), nil, "", nil); err != nil || string(out) != "one" {
		t.Fatalf("%v", err)
	}
	_, err := h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	text2 := h.encrypt("phi", "two", nil)
	if out, version, err := other.Decrypt(ctx, owner(), "phi", []byte(text2), nil, "", nil); err != nil || string(out) != "two" || version != 2 {
		t.Errorf("a version that another node made a moment ago: %v", err)
	}

	h.create(api.CreateKeyRequest{Name: "few", MaxOperations: 100})
	done := 0
	for i := range 120 {
		svc := []*Service{h.svc, other}[i%2]
		if _, _, err := svc.Encrypt(ctx, owner(), "few", nil, nil, "", nil); err == nil {
			done++
		} else {
			wants(t, err, api.CodeLimit)
		}
	}
	if done != 100 {
		t.Errorf("%d operations under a limit of 100", done)
	}

	_, err = other.Destroy(ctx, owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	h.must(h.svc.WatchClock(ctx))
	h.clock.Add(7 * 24 * time.Hour)
	if n, err := h.svc.RunDue(ctx); n != 1 || err != nil {
		t.Errorf("%d destroyed: %v", n, err)
	}
	if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed || v.Wrapped != nil {
		t.Errorf("%+v", v)
	}
	if n, err := other.RunDue(ctx); n != 0 || err != nil {
		t.Errorf("%d destroyed twice: %v", n, err)
	}
}

// New key-encryption keys that one node made are found by the other when it meets them.
func TestTwoNodesRotateKEKs(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	other := h.node("other")
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "one", nil)
	_, err := other.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	h.ring.DropAll()
	h.opens("phi", text, "one", nil, 1)
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	if out, _, err := other.Decrypt(t.Context(), owner(), "phi", []byte(h.encrypt("phi", "two", nil)), nil, "", nil); err != nil || string(out) != "two" {
		t.Errorf("%v", err)
	}
}

// The rows that sign-in and the ring read are there under their contracts.
func TestDirectoryServesItsContracts(t *testing.T) {
	var _ authn.Source = Directory{}
	var _ keyring.Source = Directory{}
	h := newHouse(t, options{})
	_, err := Directory{h.st}.LocalAdministrator(t.Context())
	wants(t, err, api.CodeNotFound)
	_, err = Directory{h.st}.TokenByID(t.Context(), "0123456789abcdef")
	wants(t, err, api.CodeNotFound)
	k := h.create(api.CreateKeyRequest{Name: "phi"})
	found, err := Directory{h.st}.KeyByName(t.Context(), "phi")
	h.must(err)
	byID, err := Directory{h.st}.KeyByID(t.Context(), found.ID)
	if err != nil || byID.Name != "phi" || byID.ID.String() != k.ID {
		t.Errorf("%+v, %v", byID, err)
	}
}
