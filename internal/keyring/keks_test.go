package keyring_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// unopened opens a master key that isn't there, as a configuration does that names one.
func unopened(t *testing.T) keyring.MasterKey {
	t.Helper()
	masters, err := keyring.OpenMasters(t.Context(), []keyring.Driver{absent{}}, []string{"absent://key"})
	if err != nil {
		t.Fatal(err)
	}
	return masters[0]
}

// A KEK for every purpose, under every master key; any one of them opens the store, and the first that can is enough.
func TestAnyMasterKeyOpensTheStore(t *testing.T) {
	one, two, stranger := keyringtest.Master(t, "one"), keyringtest.Master(t, "two"), keyringtest.Master(t, "stranger")
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src, one, two)
	key := keyringtest.NewKey(t, ring, src, "phi")
	for name, c := range map[string]struct {
		masters []keyring.MasterKey
		want    api.Code
	}{
		"both": {[]keyring.MasterKey{one, two}, ""}, "the first": {[]keyring.MasterKey{one}, ""}, "the second": {[]keyring.MasterKey{two}, ""},
		"a stranger and the second": {[]keyring.MasterKey{stranger, two}, ""}, "one that is away and the second": {[]keyring.MasterKey{unopened(t), two}, ""},
		"a stranger":           {[]keyring.MasterKey{stranger}, api.CodeIntegrity},
		"one that is away":     {[]keyring.MasterKey{unopened(t)}, api.CodeDenied},
		"a stranger, one away": {[]keyring.MasterKey{stranger, unopened(t)}, api.CodeDenied},
		"none":                 {nil, api.CodeUnavailable},
	} {
		r := keyring.New(keyringtest.Tenant, c.masters, src)
		err := r.Open(t.Context())
		if fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == api.CodeIntegrity && !strings.Contains(fault.NextOf(err), one.ID()) {
			t.Errorf("%s: the next step doesn't say which master key is wanted: %q", name, fault.NextOf(err))
		}
		if err == nil {
			if _, err := r.Version(t.Context(), &key, 1); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if r := keyring.New("another store", []keyring.MasterKey{one}, src); fault.CodeOf(r.Open(t.Context())) != api.CodeIntegrity {
		t.Error("KEKs open for another store")
	}
}

// A KEK's row can't be changed into another's: purpose, generation, id and blob are all bound.
func TestKEKRowsAreBound(t *testing.T) {
	for name, change := range map[string]func(a, b *keys.KEK){
		"purpose":           func(a, _ *keys.KEK) { a.Purpose = keys.KEKAudit },
		"generation":        func(a, _ *keys.KEK) { a.Version++ },
		"id":                func(a, _ *keys.KEK) { a.ID = keys.KEKID(envelope.NewKeyID().String()) },
		"id that isn't one": func(a, _ *keys.KEK) { a.ID = "x" },
		"blobs swapped":     func(a, b *keys.KEK) { a.Wrappings, b.Wrappings = b.Wrappings, a.Wrappings },
		"a bit":             func(a, _ *keys.KEK) { a.Wrappings[0].Blob = flip(a.Wrappings[0].Blob) },
		"no blob":           func(a, _ *keys.KEK) { a.Wrappings = nil },
	} {
		src, master := &keyringtest.Source{}, keyringtest.Master(t, "one")
		r := keyring.New(keyringtest.Tenant, []keyring.MasterKey{master}, src)
		made, err := r.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKData, keys.KEKSecrets})
		if err != nil {
			t.Fatal(err)
		}
		change(&made[0], &made[1])
		src.PutKEKs(made...)
		if err := r.Open(t.Context()); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

// Who could write to the database and knew an older KEK would have new keys wrapped under that one, if the mark of being
// active were believed.
func TestAnOlderGenerationIsNeverActive(t *testing.T) {
	for name, change := range map[string]func(old, fresh *keys.KEK){
		"the older active":   func(old, fresh *keys.KEK) { old.Active, fresh.Active = true, false },
		"both active":        func(old, _ *keys.KEK) { old.Active = true },
		"none active":        func(_, fresh *keys.KEK) { fresh.Active = false },
		"generations forged": func(old, fresh *keys.KEK) { old.Active, fresh.Active, old.Version = true, false, 9 },
	} {
		src := &keyringtest.Source{}
		ring := keyringtest.NewRing(t, src)
		made, err := ring.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKData})
		if err != nil {
			t.Fatal(err)
		}
		change(&made[0], &made[1])
		src.PutKEKs(made...)
		if err := ring.Open(t.Context()); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// Nothing of what NewKEKs made is used before the store has it (P1); then new blobs stand under the new generation and
// the old ones still open (P4).
func TestKEKRotation(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	old := key.Versions[0].KEK
	made, err := ring.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKData})
	if err != nil || len(made) != 2 || made[0].ID != old || made[0].Active || !made[1].Active || made[1].Version != 2 {
		t.Fatalf("made %+v, %v", made, err)
	}
	keyringtest.Rotate(t, ring, src, &key)
	if key.Versions[1].KEK != old {
		t.Error("a KEK that isn't stored yet was used")
	}
	src.PutKEKs(made...)
	if err := ring.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	keyringtest.Rotate(t, ring, src, &key)
	if key.Versions[0].KEK != old || key.Versions[1].KEK != made[1].ID || key.Versions[2].KEK != made[1].ID {
		t.Errorf("versions stand under %s, %s, %s; the new KEK is %s", key.Versions[0].KEK, key.Versions[1].KEK, key.Versions[2].KEK, made[1].ID)
	}
	// A version that didn't change is moved under the new KEK by binding it to what it is.
	if err := ring.Bind(t.Context(), &key, 1, key.Versions[0]); err != nil || key.Versions[0].KEK != made[1].ID {
		t.Errorf("moving version 1: %v", err)
	}
	for n := uint32(1); n <= 3; n++ {
		if _, err := ring.Version(t.Context(), &key, n); err != nil {
			t.Error(err)
		}
	}
}

// A master key is added, then the first one removed: KEKs are wrapped anew, keys and data aren't touched.
func TestMasterRotation(t *testing.T) {
	one, two := keyringtest.Master(t, "one"), keyringtest.Master(t, "two")
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src, one)
	key := keyringtest.NewKey(t, ring, src, "phi")
	for _, masters := range [][]keyring.MasterKey{{one, two}, {two}} {
		rewrapped, err := keyringtest.Rewrap(t, ring, src, masters...)
		if err != nil || len(rewrapped) != len(keys.KEKPurposes()) {
			t.Fatalf("%d rewrapped, %v", len(rewrapped), err)
		}
		for _, k := range rewrapped {
			if len(k.Wrappings) != len(masters) {
				t.Errorf("%d wrappings for %d master keys", len(k.Wrappings), len(masters))
			}
		}
		src.PutKEKs(rewrapped...)
		if err := ring.Use(t.Context(), masters); err != nil || !slices.Equal(ring.Masters(), masters) {
			t.Fatalf("using the new masters: %v", err)
		}
		ring.DropAll()
		if _, err := ring.Version(t.Context(), &key, 1); err != nil {
			t.Error(err)
		}
	}
	if _, err := one.Wrap(t.Context(), material.Random(32), keyring.Binding{}); err == nil {
		t.Error("the removed master key wasn't closed")
	}
	if err := ring.Use(t.Context(), []keyring.MasterKey{keyringtest.Master(t, "stranger")}); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("using a master key that wrapped nothing: %v", err)
	}
	if _, err := ring.Version(t.Context(), &key, 1); err != nil || ring.Masters()[0] != two {
		t.Errorf("after a refused change: %v", err)
	}
}

// Every master key takes part in wrapping, and the last one can't be removed.
func TestWrappingIsForAll(t *testing.T) {
	src, one := &keyringtest.Source{}, keyringtest.Master(t, "one")
	ring := keyringtest.NewRing(t, src, one)
	if _, err := keyringtest.Rewrap(t, ring, src, one, unopened(t)); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("wrapping under one that is away: %v", err)
	}
	if _, err := keyringtest.Rewrap(t, ring, src); fault.CodeOf(err) != api.CodeInUse {
		t.Errorf("wrapping under none: %v", err)
	}
	if _, err := keyring.New("x", []keyring.MasterKey{unopened(t)}, &keyringtest.Source{}).NewKEKs(t.Context(), keys.KEKPurposes()); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("making KEKs under one that is away: %v", err)
	}
	if _, err := keyringtest.Rewrap(t, ring, src, forgetful{one}); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a master key whose wrapping doesn't open: %v", err)
	}
	same, err := keyringtest.Rewrap(t, ring, src, one, one)
	if err != nil || len(same[0].Wrappings) != 1 {
		t.Errorf("the same key twice: %v", err)
	}
}

func TestVerify(t *testing.T) {
	one, two := keyringtest.Master(t, "one"), keyringtest.Master(t, "two")
	src := &keyringtest.Source{}
	empty := keyring.New(keyringtest.Tenant, []keyring.MasterKey{one}, src)
	if s := empty.Verify(t.Context()); len(s) != 1 || s[0].OK || fault.CodeOf(s[0].Err) != api.CodeNotFound {
		t.Errorf("a store without KEKs: %+v", s)
	}
	keyringtest.NewRing(t, src, one)
	ring := keyring.New(keyringtest.Tenant, []keyring.MasterKey{one, two, unopened(t)}, src)
	status := ring.Verify(t.Context())
	want := []struct {
		ok   bool
		code api.Code
	}{{true, ""}, {false, api.CodeNotFound}, {false, api.CodeDenied}}
	for i, s := range status {
		if s.OK != want[i].ok || fault.CodeOf(s.Err) != want[i].code || len(s.KEKs) != len(keys.KEKPurposes()) {
			t.Errorf("%s: ok %v, %v, %d KEKs", s.URL, s.OK, s.Err, len(s.KEKs))
		}
	}
	if status[0].ID != one.ID() || status[0].URL != "held://one" || status[0].Kind != keyring.Holds || status[2].Provider != "absent" {
		t.Errorf("described as %+v", status)
	}
	all, err := src.KEKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all[0].Wrappings[0].Blob = flip(all[0].Wrappings[0].Blob)
	src.PutKEKs(all[0])
	if s := ring.Verify(t.Context()); s[0].OK || fault.CodeOf(s[0].Err) != api.CodeIntegrity {
		t.Errorf("with one damaged wrapping: %+v", s[0])
	}
}

// What another process made is opened when there is something new, and only then: looking costs no master key anything.
func TestRefreshOpensWhatOthersMade(t *testing.T) {
	src, master := &keyringtest.Source{}, keyringtest.Master(t, "one")
	ring := keyringtest.NewRing(t, src, master)
	asked := &counted{MasterKey: master}
	other := keyring.New(keyringtest.Tenant, []keyring.MasterKey{asked}, src)
	if err := other.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	under := func() string {
		t.Helper()
		mac, err := other.MAC(t.Context(), keys.KEKAudit, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		id, _, _ := strings.Cut(mac, ":")
		return id
	}
	refresh := func(asks bool) {
		t.Helper()
		before := asked.n.Load()
		if err := other.Refresh(t.Context()); err != nil || asks != (asked.n.Load() > before) {
			t.Errorf("asked %d times: %v", asked.n.Load()-before, err)
		}
	}
	first := under()
	refresh(false)
	made, err := ring.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKAudit})
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if under() != first {
		t.Error("it was heard of without a look")
	}
	refresh(true)
	if under() != string(made[1].ID) {
		t.Error("something is made under what was replaced")
	}
	refresh(false)
}

// counted is a master key that counts how often it opens something.
type counted struct {
	keyring.MasterKey
	n atomic.Int64
}

func (c *counted) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	c.n.Add(1)
	return c.MasterKey.Unwrap(ctx, blob, b)
}

// A generation that this process has open isn't taken away under it: an older one would be the active one again.
func TestNoGenerationIsLost(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	made, err := ring.NewKEKs(t.Context(), []keys.KEKPurpose{keys.KEKData})
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if err := ring.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, k := range made {
		if k.Active {
			src.DropKEK(k.ID)
		} else {
			k.Active = true
			src.PutKEKs(k)
		}
	}
	for name, again := range map[string]func(context.Context) error{"opened": ring.Open, "refreshed": ring.Refresh} {
		if err := again(t.Context()); fault.CodeOf(err) != api.CodeIntegrity || !strings.Contains(fault.MessageOf(err), "is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
	src.PutKEKs(made...)
	if err := ring.Open(t.Context()); err != nil {
		t.Errorf("put back: %v", err)
	}
}
