package storetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// testUsage walks along both limits of a version. Every step is a transaction of its own.
func testUsage(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	k := newKey(t, "phi", 1)
	k.Cryptoperiod = keys.Cryptoperiod{MaxOperations: 100, MaxBytes: 1000}
	change(t, st, func(tx store.Tx) error { return tx.CreateKey(ctx, k) })
	k.Revision = 1
	reserve := func(id envelope.KeyID, version uint32, ops, bytes uint64) (o, b uint64, err error) {
		err = st.Change(ctx, func(tx store.Tx) error { o, b, err = tx.ReserveUsage(ctx, id, version, ops, bytes); return err })
		return o, b, err
	}
	give := func(version uint32, ops, bytes uint64) error {
		return st.Change(ctx, func(tx store.Tx) error { return tx.ReturnUsage(ctx, k.ID, version, ops, bytes) })
	}
	for _, step := range []struct {
		ops, bytes         uint64
		code               api.Code
		wantOps, wantBytes uint64
	}{
		{60, 10, "", 60, 10},
		{41, 0, api.CodeLimit, 60, 10},
		{0, 991, api.CodeLimit, 60, 10},
		{40, 990, "", 100, 1000},
		{1, 0, api.CodeLimit, 100, 1000},
		{0, 0, "", 100, 1000},
		{math.MaxInt64, 0, api.CodeLimit, 100, 1000},
		{math.MaxUint64, 0, api.CodeInvalid, 100, 1000},
	} {
		ops, bytes, err := reserve(k.ID, 1, step.ops, step.bytes)
		if step.code != "" {
			wantCode(t, err, step.code, "over the limit")
		} else if err != nil || ops != step.wantOps || bytes != step.wantBytes {
			t.Errorf("reserving %d and %d gave %d, %d, %v", step.ops, step.bytes, ops, bytes, err)
		}
		wantUsage(t, st, k, step.wantOps, step.wantBytes)
	}
	if err := give(1, 30, 500); err != nil {
		t.Error(err)
	}
	wantUsage(t, st, k, 70, 500)

	// UpdateKey of somebody who read the key before the reservations leaves the counters alone.
	k.Versions[0].Reason = "again"
	change(t, st, func(tx store.Tx) error { return tx.UpdateKey(ctx, k) })
	wantUsage(t, st, k, 70, 500)
	if err := give(1, 71, 501); err != nil {
		t.Error(err)
	}
	wantUsage(t, st, k, 0, 0)

	wantCode(t, give(2, 1, 1), api.CodeNotFound, "returning to a version that isn't there")
	_, _, err := reserve(k.ID, 2, 1, 1)
	wantCode(t, err, api.CodeNotFound, "reserving of a version that isn't there")
	_, _, err = reserve(envelope.NewKeyID(), 1, 1, 1)
	wantCode(t, err, api.CodeNotFound, "reserving of a key that isn't there")
	unlimited(t, st)
	opened(t, st, k)
}

func wantUsage(t *testing.T, st store.Store, k keys.Key, ops, bytes uint64) {
	t.Helper()
	view(t, st, func(tx store.Tx) error {
		stored, err := tx.KeyByID(t.Context(), k.ID)
		if v := stored.Versions[0]; v.Operations != ops || v.Bytes != bytes {
			t.Errorf("the counters are %d and %d, want %d and %d", v.Operations, v.Bytes, ops, bytes)
		}
		return err
	})
}

// unlimited: without a limit the counters end where 63 bits do, and never wrap or turn into something else.
func unlimited(t *testing.T, st store.Store) {
	ctx := t.Context()
	k := newKey(t, "unlimited", 1)
	change(t, st, func(tx store.Tx) error { return tx.CreateKey(ctx, k) })
	change(t, st, func(tx store.Tx) error {
		_, _, err := tx.ReserveUsage(ctx, k.ID, 1, math.MaxInt64-1, math.MaxInt64)
		return err
	})
	for _, more := range [][2]uint64{{2, 0}, {0, 1}} {
		refused(t, st, api.CodeLimit, "beyond 63 bits", func(tx store.Tx) error {
			_, _, err := tx.ReserveUsage(ctx, k.ID, 1, more[0], more[1])
			return err
		})
	}
	wantUsage(t, st, k, math.MaxInt64-1, math.MaxInt64)
}

// opened: LastOpened only moves forward.
func opened(t *testing.T, st store.Store, k keys.Key) {
	ctx := t.Context()
	for _, seconds := range []int{50, 40, 50, 60} {
		change(t, st, func(tx store.Tx) error { return tx.MarkOpened(ctx, k.ID, 1, at(seconds)) })
	}
	view(t, st, func(tx store.Tx) error {
		stored, err := tx.KeyByName(ctx, k.Name)
		if !stored.Versions[0].LastOpened.Equal(at(60)) {
			t.Errorf("last opened at %v, want %v", stored.Versions[0].LastOpened, at(60))
		}
		return err
	})
	refused(t, st, api.CodeNotFound, "opening a version that isn't there", func(tx store.Tx) error {
		return tx.MarkOpened(ctx, k.ID, 9, at(70))
	})
}

func testKEKs(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	kek := keys.KEK{ID: "00ff", Purpose: keys.KEKData, Version: 1, Active: true, Created: epoch, Wrappings: []keys.Wrapping{
		{MasterID: "m1", URL: "env://A", Blob: []byte("one")}, {MasterID: "m2", URL: "file:///b", Blob: []byte("two")}}}
	other := keys.KEK{ID: "aa", Purpose: keys.KEKAudit, Version: 1, Active: true, Created: epoch}
	put := func(ks ...keys.KEK) {
		t.Helper()
		change(t, st, func(tx store.Tx) error { return tx.PutKEKs(ctx, ks...) })
	}
	want := func(ks ...keys.KEK) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.KEKs(ctx)
			wantEqual(t, "the key-encryption keys", got, ks)
			if err != nil {
				return err
			}
			active, err := tx.ActiveKEKs(ctx)
			for _, k := range ks {
				if is := active[k.Purpose] == k.ID; is != k.Active {
					t.Errorf("%s: among the active ones: %v", k.ID, is)
				}
			}
			return err
		})
	}
	want()
	put(kek, other)
	want(other, kek)
	kek.Active, kek.Wrappings = false, kek.Wrappings[1:]
	next := kek
	next.ID, next.Version, next.Active = "01", 2, true
	put(kek, next)
	want(other, kek, next)
	next.Wrappings = nil
	put(next)
	want(other, kek, next)

	// More of them than one statement writes, twice.
	many := []keys.KEK{kek, next}
	for version := uint32(3); version <= 27; version++ {
		k := keys.KEK{ID: keys.KEKID(fmt.Sprintf("b%02d", version)), Purpose: keys.KEKData, Version: version, Created: epoch}
		for i := range version % 4 {
			k.Wrappings = append(k.Wrappings, keys.Wrapping{MasterID: fmt.Sprint("m", i), URL: fmt.Sprint("env://", i), Blob: []byte{byte(version), byte(i)}})
		}
		many = append(many, k)
	}
	put(many...)
	want(append([]keys.KEK{other}, many...)...)
	for i := range many {
		many[i].Wrappings = []keys.Wrapping{{MasterID: "m", URL: "env://M", Blob: []byte{byte(i)}}}
	}
	many[2].Created = at(1)
	put(many...)
	want(append([]keys.KEK{other}, many...)...)
}
