package keyring_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
)

// kekWrappings are the wrappings of every KEK under a master key.
func kekWrappings(t *testing.T, src *keyringtest.Source, m keyring.MasterKey) (blobs [][]byte) {
	t.Helper()
	all, err := src.KEKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b keys.KEK) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, k := range all {
		for _, w := range k.Wrappings {
			if w.MasterID == m.ID() {
				blobs = append(blobs, w.Blob)
			}
		}
	}
	return blobs
}

// A node with a shorter list: whatever it does in passing, what is wrapped under the others' master keys stays blob for
// blob; only what is given up goes. New KEKs, which it can't wrap for them, it doesn't make.
func TestWrappingsOfOtherNodesStay(t *testing.T) {
	one, two, three := keyringtest.Master(t, "one"), keyringtest.Master(t, "two"), keyringtest.Master(t, "three")
	src := &keyringtest.Source{}
	keyringtest.NewRing(t, src, one, two)
	r := keyring.New(keyringtest.Tenant, []keyring.MasterKey{one}, src)
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, own := kekWrappings(t, src, two), kekWrappings(t, src, one)
	for _, list := range [][]keyring.MasterKey{{one}, {one, three}, {one}} { // rotated, added, removed
		wrapped, err := keyringtest.Rewrap(t, r, src, list...)
		if err != nil {
			t.Fatal(err)
		}
		src.PutKEKs(wrapped...)
		if err := r.Use(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		if after := kekWrappings(t, src, two); len(after) != len(keys.KEKPurposes()) || !slices.EqualFunc(after, before, bytes.Equal) {
			t.Errorf("with %d master keys the other node's wrappings are others", len(list))
		}
		if slices.EqualFunc(kekWrappings(t, src, one), own, bytes.Equal) {
			t.Error("its own weren't made anew")
		}
		all, err := r.Elsewhere(t.Context())
		if err != nil || len(all) != 1 || all[0] != (keyring.Elsewhere{URL: two.URL(), ID: two.ID(), Name: two.URL(), KEKs: len(keys.KEKPurposes())}) {
			t.Errorf("elsewhere: %+v, %v", all, err)
		}
	}
	if len(kekWrappings(t, src, three)) != 0 {
		t.Error("what was removed is still wrapped under")
	}
	_, err := r.NewKEKs(t.Context(), keys.KEKPurposes())
	if fault.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), two.URL()) || !strings.Contains(fault.NextOf(err), "keyturn master remove "+two.URL()) {
		t.Errorf("new KEKs that the other node couldn't open: %v, next %q", err, fault.NextOf(err))
	}
	read, err := src.KEKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := r.RewrapKEKs(t.Context(), read, r.Masters(), func(w keys.Wrapping) bool { return w.MasterID == two.ID() })
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(wrapped...)
	if len(kekWrappings(t, src, two)) != 0 {
		t.Error("what was given up is still wrapped under")
	}
	if _, err := r.NewKEKs(t.Context(), keys.KEKPurposes()); err != nil {
		t.Error(err)
	}
}

// A URL that stands for two keys, as the path of a file on two machines may, names neither: the fingerprint does.
func TestElsewhereNamesOneKey(t *testing.T) {
	own, same, other, twin := keyringtest.Master(t, "m"), keyringtest.Master(t, "m"), keyringtest.Master(t, "o"), keyringtest.Master(t, "o")
	src := &keyringtest.Source{}
	keyringtest.NewRing(t, src, own, same, other, twin, keyringtest.Master(t, "p"))
	all, err := keyring.New(keyringtest.Tenant, []keyring.MasterKey{own}, src).Elsewhere(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, e := range all {
		want := e.ID
		if e.URL == "held://p" {
			want = e.URL
		}
		if e.Name != want || e.ID == own.ID() {
			t.Errorf("%+v", e)
		}
	}
	// One that is away has no fingerprint: what its URL wrapped isn't taken for another's.
	src = &keyringtest.Source{}
	keyringtest.NewRing(t, src, own, other)
	away := keyring.Away(other.URL(), fault.New(api.CodeUnavailable, "gone"))
	if all, err := keyring.New(keyringtest.Tenant, []keyring.MasterKey{own, away}, src).Elsewhere(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// What is said of a master key that isn't wrapped under is what can be done about it.
func TestNotWrappedSaysWhatHelps(t *testing.T) {
	one, two := keyringtest.Master(t, "one"), keyringtest.Master(t, "two")
	src := &keyringtest.Source{}
	keyringtest.NewRing(t, src, one)
	for _, c := range []struct {
		masters []keyring.MasterKey
		next    string
	}{{[]keyring.MasterKey{two, one}, "keyturn master rotate"}, {[]keyring.MasterKey{two}, "held://one (fingerprint "}} {
		s := keyring.New(keyringtest.Tenant, c.masters, src).Verify(t.Context())[0]
		next := fault.NextOf(s.Err)
		if s.OK || fault.CodeOf(s.Err) != api.CodeNotFound || !strings.Contains(next, c.next) || strings.Contains(s.Err.Error(), "never") {
			t.Errorf("%v, next %q, want %q", s.Err, next, c.next)
		}
		if len(c.masters) == 1 && strings.Contains(next, "rotate") {
			t.Errorf("advice that can't work: %q", next)
		}
	}
}
