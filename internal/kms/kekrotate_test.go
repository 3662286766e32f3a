package kms

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
)

// generation is that of the active key-encryption key for versions, and its id.
func (h *house) generation() (uint32, keys.KEKID) {
	h.t.Helper()
	all, err := Directory{h.st}.KEKs(h.t.Context())
	h.must(err)
	for _, k := range all {
		if k.Active && k.Purpose == keys.KEKData {
			return k.Version, k.ID
		}
	}
	h.t.Fatal("no key-encryption key is active")
	return 0, ""
}

// stands checks that a generation is the active one and that every version of these keys stands under it.
func (h *house) stands(generation uint32, names ...string) {
	h.t.Helper()
	now, active := h.generation()
	if now != generation {
		h.t.Errorf("generation %d is active, want %d", now, generation)
	}
	for _, name := range names {
		for _, v := range h.stored(name).Versions {
			if v.KEK != active {
				h.t.Errorf("version %d of key %s stands under another key-encryption key than generation %d", v.Number, name, now)
			}
		}
	}
}

func (h *house) rotateKEKs() error {
	return second(h.svc.RotateMasters(h.t.Context(), owner(), api.RotateMasterRequest{KEKs: true}))
}

// Whatever a node does that has heard of no rotation, nothing of it is committed under a key-encryption key that was replaced.
func TestANodeThatHearsOfNoRotationWrapsUnderTheNewKEK(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	generation := uint32(1)
	for name, do := range map[string]func(other *Service) error{
		"create": func(o *Service) error { return second(o.Create(ctx, owner(), api.CreateKeyRequest{Name: "aaa"})) },
		"import": func(o *Service) error {
			return second(o.Import(ctx, owner(), "bbb", api.ImportKeyRequest{Version: 1, Material: []byte("0123456789abcdef0123456789abcdef"), Purpose: "phi"}))
		},
		"rotate": func(o *Service) error { return second(o.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})) },
		"principal": func(o *Service) error {
			return second(o.CreatePrincipal(ctx, owner(), api.CreatePrincipalRequest{Name: "aud", Role: access.RoleAuditor}))
		},
	} {
		other := h.node(name)
		h.must(h.rotateKEKs())
		generation++
		if err := do(other); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		h.stands(generation, "phi")
		h.must(h.st.View(ctx, func(tx store.Tx) error {
			active, err := tx.ActiveKEKs(ctx)
			if err != nil {
				return err
			}
			if name == "principal" {
				p, err := tx.(*attestedTx).Tx.PrincipalByID(ctx, h.principal("aud"))
				if err == nil && !strings.HasPrefix(p.MAC, string(active[keys.KEKAudit])) {
					t.Error("a row is signed under a key-encryption key that was replaced")
				}
				return err
			}
			return eachKey(ctx, tx, func(k keys.Key) error {
				for _, v := range k.Versions {
					if v.KEK != active[keys.KEKData] {
						t.Errorf("%s: version %d of key %s is wrapped under a key-encryption key that was replaced", name, v.Number, k.Name)
					}
				}
				return nil
			})
		}))
	}
	// Asked for again, there is a new generation again, and everything under it.
	h.must(h.rotateKEKs())
	h.stands(generation+1, "phi", "aaa", "bbb")
	h.encrypt("aaa", "x", nil)
}

func (h *house) principal(name string) (id string) {
	h.t.Helper()
	h.must(h.st.View(h.t.Context(), func(tx store.Tx) error {
		return tx.SQL().QueryRow(`SELECT id FROM principals WHERE name = '` + name + `'`).Scan(&id)
	}))
	return id
}

// midway is a doorway that lets something happen in the midst of a change: after its work and before its commit, once.
type midway struct {
	Doorway
	then func()
}

func (m *midway) Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error {
	return m.Doorway.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		err := change(ctx, tx, ev)
		if do := m.then; do != nil {
			m.then = nil
			do()
		}
		return err
	})
}

// A key that is being made while all others are moved is found by the move, or made under the new key-encryption key: behind
// the place that the move has come to, too.
func TestKeysMadeDuringARotationOfKEKs(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	h.create(api.CreateKeyRequest{Name: "phi"})
	other := h.node("other")
	door := &midway{Doorway: other.gate, then: func() { h.must(h.rotateKEKs()) }}
	other.gate = door
	h.must(second(other.Create(t.Context(), owner(), api.CreateKeyRequest{Name: "aaa"})))
	if door.then != nil {
		t.Error("nothing was rotated meanwhile")
	}
	h.stands(2, "phi", "aaa")
}

// Who asks for new key-encryption keys gets them also where an earlier rotation was killed, and what that one left behind is moved
// with the rest; until then doctor says that there is a rest.
func TestARotationOfKEKsAfterAnInterruptedOne(t *testing.T) {
	h := newHouse(t, options{})
	for _, name := range []string{"a", "b", "c"} {
		h.create(api.CreateKeyRequest{Name: name})
	}
	made, err := h.ring.NewKEKs(t.Context(), keys.KEKPurposes())
	h.must(err)
	h.must(h.st.Change(t.Context(), func(tx store.Tx) error { return tx.PutKEKs(t.Context(), made...) })) // and killed here
	if ok, detail, _ := h.svc.checkKEKs(t.Context()); ok || !strings.HasPrefix(detail, "3 versions") {
		t.Errorf("doctor: %v %q", ok, detail)
	}
	h.must(h.rotateKEKs())
	h.stands(3, "a", "b", "c")
	if ok, detail, _ := h.svc.checkKEKs(t.Context()); !ok {
		t.Errorf("doctor: %q", detail)
	}
}

// impatient is a doorway whose caller goes away as soon as a change is committed.
type impatient struct {
	Doorway
	leave context.CancelFunc
}

func (i *impatient) Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error {
	err := i.Doorway.Change(ctx, c, in, change)
	i.leave()
	return err
}

// Once the new generation is committed, the rest is done for nobody, too: the ring uses it, and the versions are moved.
func TestARotationOfKEKsOutlivesItsCaller(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	ctx, cancel := context.WithCancel(t.Context())
	door := h.svc.gate
	h.svc.gate = &impatient{door, cancel}
	h.must(second(h.svc.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true})))
	if ctx.Err() == nil {
		t.Fatal("the caller is still there")
	}
	h.svc.gate = door
	h.stands(2, "phi")
	h.create(api.CreateKeyRequest{Name: "aaa"})
	h.stands(2, "aaa")
}

// Rows that aren't as keyturn wrote them are named, at the end: they keep no other key under the old key-encryption key, and no
// new generation from being made.
func TestBadRowsDontHoldUpARotationOfKEKs(t *testing.T) {
	h := newHouse(t, options{})
	var good []string
	for i := range 3*pageOfBinding/2 + 1 {
		name := fmt.Sprintf("k%03d", i)
		h.create(api.CreateKeyRequest{Name: name})
		if i%10 != 0 {
			good = append(good, name)
		}
	}
	h.forge(`UPDATE keys SET purpose = 'pii' WHERE name LIKE 'k__0'`)
	for i := range 3 {
		err := h.rotateKEKs()
		wants(t, err, api.CodeIntegrity, "key")
		if text := fault.MessageOf(err); !strings.Contains(text, "key k000, key k010, key k020, key k030, key k040 and 11 more") {
			t.Errorf("it says: %s", text)
		}
		if next := fault.NextOf(err); !strings.Contains(next, "doctor") || !strings.HasSuffix(next, "keyturn master rotate --keks") {
			t.Errorf("next: %s", next)
		}
		if e := h.lastEvent(); e.Action != "versions_rewrapped" || e.Success || e.Details["changed"] != float64(len(good)) || e.Details["failed"] != 16.0 {
			t.Errorf("%s", e.raw)
		}
		h.stands(uint32(2+i), good...)
	}
	h.forge(`UPDATE keys SET purpose = (SELECT purpose FROM keys WHERE name = 'k001') WHERE name LIKE 'k__0'`)
	h.must(h.rotateKEKs())
	h.stands(5, append(good, "k000", "k150")...)
}

// Whoever writes to the database can't have a key passed over by writing the new key-encryption key's name beside it.
func TestAForgedKEKDoesntKeepAKeyFromBeingMoved(t *testing.T) {
	h := newHouse(t, options{})
	for _, name := range []string{"aaa", "bbb"} {
		h.create(api.CreateKeyRequest{Name: name})
	}
	_, old := h.generation()
	h.forge(`CREATE TRIGGER sly AFTER INSERT ON keks WHEN NEW.purpose = 'data' BEGIN
		UPDATE key_versions SET kek = NEW.id WHERE key_id = (SELECT id FROM keys WHERE name = 'aaa'); END`)
	err := h.rotateKEKs()
	wants(t, err, api.CodeIntegrity, "key")
	if !strings.Contains(fault.MessageOf(err), "key aaa") {
		t.Errorf("it isn't named: %v", err)
	}
	h.stands(2, "bbb")
	h.forge(`DROP TRIGGER sly`)
	h.forge(`UPDATE key_versions SET kek = $1 WHERE key_id = (SELECT id FROM keys WHERE name = 'aaa')`, string(old))
	h.must(h.rotateKEKs())
	h.stands(3, "aaa", "bbb")
}

// Nor by hiding it from the walk for as long as it takes: what was walked has to be all that there is.
func TestAHiddenKeyIsMissedByARotationOfKEKs(t *testing.T) {
	h := newHouse(t, options{})
	for _, name := range []string{"aaa", "bbb"} {
		h.create(api.CreateKeyRequest{Name: name})
	}
	h.forge(`UPDATE keys SET name = '' WHERE name = 'aaa'`) // which comes after no name
	err := h.rotateKEKs()
	wants(t, err, api.CodeIntegrity)
	if !strings.Contains(fault.MessageOf(err), "hidden") || !strings.Contains(fault.NextOf(err), "master rotate --keks") {
		t.Errorf("%v, next %q", err, fault.NextOf(err))
	}
	h.stands(2, "bbb")
	h.forge(`UPDATE keys SET name = 'aaa' WHERE name = ''`)
	h.must(h.rotateKEKs())
	h.stands(3, "aaa", "bbb")
}

// Nor by taking the new generation away, so that everything stands under the old one and that is the active one again.
func TestAGenerationThatIsTakenAwayIsMissed(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "aaa"})
	h.forge(`CREATE TRIGGER back AFTER INSERT ON kek_wrappings WHEN (SELECT purpose = 'data' AND version = 2 FROM keks WHERE id = NEW.kek_id) BEGIN
		DELETE FROM kek_wrappings WHERE kek_id = NEW.kek_id; DELETE FROM keks WHERE id = NEW.kek_id; UPDATE keks SET active = 1 WHERE purpose = 'data'; END`)
	err := h.rotateKEKs()
	wants(t, err, api.CodeIntegrity)
	if text := fault.MessageOf(err); !strings.Contains(text, "generation 2") || !strings.Contains(text, "purpose data") {
		t.Errorf("it says: %s", text)
	}
}
