package escrow_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/escrow"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

func open(t testing.TB) keyring.Attacher {
	t.Helper()
	k, err := escrow.Driver{}.Open(t.Context(), "escrow://")
	if err != nil {
		t.Fatal(err)
	}
	return k.(keyring.Attacher)
}

// Once attached it is a master key like any other.
func TestEscrow(t *testing.T) {
	attached := func(b byte) func(*testing.T) keyring.MasterKey {
		return func(t *testing.T) keyring.MasterKey {
			k := open(t)
			if err := k.Attach(material.New(append(make([]byte, 31), b))); err != nil {
				t.Fatal(err)
			}
			if k.URL() != "escrow://" || k.Provider() != "escrow" || k.Kind() != keyring.Escrow {
				t.Errorf("opens as %s, %s, %s", k.URL(), k.Provider(), k.Kind())
			}
			return k
		}
	}
	keyringtest.Exercise(t, keyringtest.Harness{Open: attached(1), Other: attached(2)})
}

// The same bytes in a file are the same master key: what shares give back opens what escrow wrapped.
func TestEscrowIsTheKeyThatSharesGive(t *testing.T) {
	m := material.Random(32)
	k := open(t)
	if err := k.Attach(m.Clone()); err != nil {
		t.Fatal(err)
	}
	shares, err := keyring.SplitKey(m, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	back, err := keyring.CombineShares(shares[1:])
	if err != nil {
		t.Fatal(err)
	}
	held, err := keyring.Hold("file:///recovered", "file", back)
	if err != nil || held.ID() != k.ID() || shares[0].Set != k.ID() {
		t.Fatalf("the fingerprints are %s, %s, %s: %v", held.ID(), k.ID(), shares[0].Set, err)
	}
	b := keyring.Binding{Kind: "kek/data", ID: "x", Version: 1}
	blob, err := k.Wrap(t.Context(), m, b)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := held.Unwrap(t.Context(), blob, b); err != nil || !out.Equal(m) {
		t.Errorf("the key from shares doesn't open it: %v", err)
	}
}

func TestDetached(t *testing.T) {
	k := open(t)
	fails := func(code api.Code) {
		t.Helper()
		_, err := k.Wrap(t.Context(), material.Random(32), keyring.Binding{})
		_, uerr := k.Unwrap(t.Context(), nil, keyring.Binding{})
		if k.ID() != "" || fault.CodeOf(err) != code || fault.CodeOf(uerr) != code || fault.NextOf(err) == "" {
			t.Errorf("fingerprint %q, %v, %v", k.ID(), err, uerr)
		}
	}
	fails(api.CodeUnavailable)
	if err := k.Attach(material.Random(31)); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("31 bytes: %v", err)
	}
	fails(api.CodeUnavailable)
	if err := k.Attach(material.Random(32)); err != nil || k.ID() == "" {
		t.Fatalf("%v", err)
	}
	k.Detach(fault.New(api.CodeWrongState, "no shares").WithNext("make some"))
	fails(api.CodeWrongState)
	k.Detach(nil)
	fails(api.CodeUnavailable)
}

func TestEscrowURL(t *testing.T) {
	for _, url := range []string{"escrow:", "escrow:///", "escrow://x", "escrow://?a=b", "escrow://#x", "escrow://u:p@h", "escrow:///path", "Escrow://", "file:///x", ""} {
		if _, err := (escrow.Driver{}).Open(t.Context(), url); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// ring is an open ring over a held key and an escrow key, and its store.
func ring(t *testing.T) (*keyring.Ring, *keyringtest.Source, keyring.MasterKey, keyring.Attacher, keyring.EscrowSet) {
	t.Helper()
	src, master, k := &keyringtest.Source{}, keyringtest.Master(t, "one"), open(t)
	r := keyringtest.NewRing(t, src, master)
	set, err := r.NewEscrow(t.Context(), k, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	masters := []keyring.MasterKey{master, k}
	wrapped, err := keyringtest.Rewrap(t, r, src, masters...)
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(wrapped...)
	if err := r.Use(t.Context(), masters); err != nil {
		t.Fatal(err)
	}
	return r, src, master, k, set
}

// A store made anew from its rows: opened by the other master key, escrow attached, everything wraps and proves again.
func TestAttach(t *testing.T) {
	_, src, master, _, set := ring(t)
	k := open(t)
	r := keyring.New(keyringtest.Tenant, []keyring.MasterKey{k, master}, src)
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Verify(t.Context()); s[0].OK || !s[1].OK {
		t.Errorf("before attaching: %+v", s)
	}
	for range 2 {
		if err := r.Attach(t.Context(), k, set.Set, set.Sealed); err != nil || k.ID() != set.Set {
			t.Fatalf("attaching: %v", err)
		}
	}
	if s := r.Verify(t.Context()); !s[0].OK || !s[1].OK || s[0].Kind != keyring.Escrow {
		t.Errorf("after attaching: %+v", s)
	}
	made, err := r.NewKEKs(t.Context(), keys.KEKPurposes())
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if err := r.Open(t.Context()); err != nil || !r.Verify(t.Context())[0].OK {
		t.Errorf("a new generation: %v", err)
	}
	if r.SealedUnderActive(keys.KEKRecovery, set.Sealed) || r.SealedUnderActive(keys.KEKRecovery, nil) {
		t.Error("the record is taken to stand under the new generation")
	}
}

// Escrow never opens a store, attached or not; on the day on which nothing else does, the error says what does.
func TestEscrowOpensNoStore(t *testing.T) {
	r, src, _, k, _ := ring(t)
	if k.ID() == "" {
		t.Fatal("not attached")
	}
	away, err := keyring.OpenMasters(t.Context(), []keyring.Driver{gone{}}, []string{"gone://x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		masters []keyring.MasterKey
		code    api.Code
	}{
		"alone": {[]keyring.MasterKey{k}, api.CodeUnavailable}, "with one that is away": {[]keyring.MasterKey{away[0], k}, api.CodeDenied},
		"with a stranger": {[]keyring.MasterKey{keyringtest.Master(t, "x"), k}, api.CodeIntegrity},
	} {
		err := keyring.New(keyringtest.Tenant, c.masters, src).Open(t.Context())
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if next := fault.NextOf(err); c.code != api.CodeIntegrity && !strings.Contains(next, "keyturn escrow combine") {
			t.Errorf("%s: the next step is %q", name, next)
		}
	}
	if _, err := keyringtest.Rewrap(t, r, src, k); fault.CodeOf(err) != api.CodeInUse {
		t.Errorf("wrapping under escrow alone: %v", err)
	}
}

// A writer to the database plants an escrow key of his own, sealed under a KEK for recovery that he knows. Without the
// other KEKs he can't wrap them under it, and it is refused before anything new is wrapped under it.
func TestPlantedEscrowKeyIsRefused(t *testing.T) {
	r, src, _, k, set := ring(t)
	mine := open(t)
	planted, err := r.NewEscrow(t.Context(), mine, 2, 2) // sealed as only who has the KEK can
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, code api.Code) {
		t.Helper()
		if err := r.Attach(t.Context(), k, planted.Set, planted.Sealed); fault.CodeOf(err) != code || k.ID() != set.Set {
			t.Errorf("%s: %v, attached is %s", what, err, k.ID())
		}
	}
	refused("no wrappings under it", api.CodeNotFound)
	// He wraps keys of his own in the place of the true ones.
	records, err := src.KEKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, rec := range records {
		b := keyring.Binding{Tenant: keyringtest.Tenant, Kind: "kek/" + string(rec.Purpose), ID: string(rec.ID), Version: rec.Version}
		blob, err := mine.Wrap(t.Context(), material.Random(32), b)
		if err != nil {
			t.Fatal(err)
		}
		records[i].Wrappings = append(records[i].Wrappings, keys.Wrapping{MasterID: mine.ID(), URL: "escrow://", Blob: blob})
	}
	src.PutKEKs(records...)
	refused("wrappings of other keys", api.CodeIntegrity)
	for what, c := range map[string]struct {
		set    string
		sealed []byte
	}{
		"the record under another set's name": {planted.Set, set.Sealed}, "a changed record": {set.Set, append([]byte{}, set.Sealed[:len(set.Sealed)-1]...)}, "none": {set.Set, nil},
	} {
		if err := r.Attach(t.Context(), k, c.set, c.sealed); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Verify, too, tells a wrapping of another key from the true one.
	if err := k.Attach(material.Random(32)); err != nil {
		t.Fatal(err)
	}
	if s := r.Verify(t.Context()); s[1].OK {
		t.Error("a key that isn't the store's is vouched for")
	}
}

// gone is a provider whose key can't be had.
type gone struct{}

func (gone) Scheme() string { return "gone" }

func (gone) Open(context.Context, string) (keyring.MasterKey, error) {
	return nil, fault.New(api.CodeDenied, "the account is gone")
}
