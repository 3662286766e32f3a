package kms

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// TestAChangeHoldsOnEveryNodeAtItsCommit: the other node remembers the key as it was, hears no news in this test, and all
// the same answers nothing that a change has forbidden: what a key may do is looked at again when the record is committed.
func TestAChangeHoldsOnEveryNodeAtItsCommit(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	other := h.node("other")
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	seal := func(want uint32, code api.Code) []byte {
		t.Helper()
		text, version, err := other.Encrypt(ctx, owner(), "phi", []byte("x"), nil, "", nil)
		if code != "" {
			wants(t, err, code)
		} else if err != nil || version != want {
			t.Errorf("version %d, want %d: %v", version, want, err)
		}
		return text
	}
	one := seal(1, "")
	_, err := h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	seal(2, "")
	_, err = h.svc.Suspend(ctx, owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	seal(0, api.CodeWrongState)
	_, err = h.svc.Resume(ctx, owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	seal(2, "") // a refusal that isn't true any more isn't given either
	_, err = h.svc.Compromise(ctx, owner(), "phi", api.VersionStateRequest{Version: 2})
	h.must(err)
	seal(3, "")
	h.must(open(other, "phi", one))
	_, err = h.svc.Destroy(ctx, owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	wants(t, open(other, "phi", one), api.CodeWrongState)
}

func open(s *Service, key string, text []byte) error {
	_, _, err := s.Decrypt(context.Background(), owner(), key, text, nil, "", nil)
	return err
}

// moving is a doorway that lets something happen between an operation's work and its record, once.
type moving struct {
	Doorway
	between func()
}

func (m *moving) Use(ctx context.Context, c *access.Caller, in gate.Intent, run func(context.Context, *audit.Event) error) error {
	return m.Doorway.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		err := run(ctx, ev)
		if do := m.between; do != nil {
			m.between = nil
			do()
		}
		return err
	})
}

// TestEveryOperationCanBeDoneAgain: whatever is done with a key, a rotation by another node in its very midst leads to the
// answer that one would get afterwards, with nothing left of the first attempt.
func TestEveryOperationCanBeDoneAgain(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	other := h.node("other")
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "one", nil)
	door := &moving{Doorway: other.gate}
	other.gate = door
	version := uint32(1)
	rotating := func() {
		version++
		door.between = func() {
			_, err := h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})
			h.must(err)
		}
	}
	check := func(what string, got uint32, err error, ok bool) {
		t.Helper()
		if err != nil || got != version || !ok || door.between != nil {
			t.Errorf("%s: version %d, want %d, right: %v: %v", what, got, version, ok, err)
		}
	}
	rotating()
	sealed, v, err := other.Encrypt(ctx, owner(), "phi", []byte("two"), nil, "", []byte("kept"))
	check("encrypt", v, err, string(sealed[:4]) == "kept" && open(other, "phi", sealed[4:]) == nil)
	rotating()
	plain, v, err := other.Decrypt(ctx, owner(), "phi", []byte(text), nil, "", []byte("kept"))
	check("decrypt", v+version-1, err, string(plain) == "keptone")
	rotating()
	moved, err := other.Rewrap(ctx, owner(), "phi", api.RewrapRequest{Ciphertext: text})
	check("rewrap", moved.Version, err, moved.FromVersion == 1)
	rotating()
	data, err := other.DataKey(ctx, owner(), "phi", api.DataKeyRequest{})
	check("datakey", data.Version, err, len(data.Plaintext) == 32 && open(other, "phi", []byte(data.Ciphertext)) == nil)
	rotating()
	derived, err := other.Derive(ctx, owner(), "phi", api.DeriveRequest{Label: "l"})
	check("derive", derived.Version, err, len(derived.Key) == 32)
	rotating()
	exported, err := other.Export(ctx, owner(), "phi", api.ExportKeyRequest{Reason: "test"})
	check("export", exported.Version, err, len(exported.Material) == 32)
	rotating()
	items, err := other.EncryptBatch(ctx, owner(), "phi", api.EncryptBatchRequest{Items: []api.EncryptRequest{{Plaintext: []byte("a")}, {Plaintext: []byte("b")}}})
	check("encrypt batch", items.Items[1].Version, err, items.Items[0].Version == version && items.Items[0].Error == nil)
	rotating()
	opened, err := other.DecryptBatch(ctx, owner(), "phi", api.DecryptBatchRequest{Items: []api.DecryptRequest{
		{Ciphertext: items.Items[0].Ciphertext}, {Ciphertext: text}, {Ciphertext: "kt1.broken"}}})
	check("decrypt batch", version, err, string(opened.Items[0].Plaintext) == "a" && string(opened.Items[1].Plaintext) == "one" && opened.Items[2].Error != nil)
	rotating()
	again, err := other.RewrapBatch(ctx, owner(), "phi", api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: text}}})
	check("rewrap batch", again.Items[0].Version, err, again.Items[0].FromVersion == 1)
	if k := h.stored("phi"); len(k.Versions) != int(version) {
		t.Errorf("%d versions after %d rotations", len(k.Versions), version-1)
	}
}

// A store whose clock differs by minutes from the nodes' has no part in what a key's periods are measured with.
func TestNodesWithOtherClocks(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	for _, skew := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		h.clock.Jump(skew, 0)
		other := h.node("skewed") // takes a shard of its own, not that of the node that lives
		h.clock.Jump(-skew, 0)
		if _, _, err := other.Encrypt(t.Context(), owner(), "phi", nil, nil, "", nil); err == nil {
			t.Error("a key that isn't there")
		}
		if err := h.gate.Err(); err != nil {
			t.Fatalf("a node whose clock is %v off stopped another: %v", skew, err)
		}
	}
}
