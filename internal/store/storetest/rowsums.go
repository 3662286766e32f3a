package storetest

import (
	"maps"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// testRowSums: sums are kept by bucket, and the walk finds each signed row of each table once, with its MAC as it stands.
func testRowSums(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	refused(t, st, api.CodeNotFound, "a sum that was never written", func(tx store.Tx) error { _, err := tx.RowSum(ctx, 3); return err })
	view(t, st, func(tx store.Tx) error {
		none, err := tx.RowSums(ctx)
		wantEqual(t, "sums of a new store", len(none), 0)
		return err
	})
	put := func(bucket int, seq uint64, sealed string) {
		t.Helper()
		change(t, st, func(tx store.Tx) error {
			return tx.PutRowSum(ctx, store.RowSum{Bucket: bucket, Seq: seq, Sealed: []byte(sealed)})
		})
	}
	put(3, 1, "first")
	put(0, 1<<40, "other")
	put(3, 2, "second")
	view(t, st, func(tx store.Tx) error {
		got, err := tx.RowSum(ctx, 3)
		if err != nil {
			return err
		}
		wantEqual(t, "a sum", string(got.Sealed), "second")
		wantEqual(t, "how often it was written", got.Seq, 2)
		all, err := tx.RowSums(ctx)
		if wantEqual(t, "the number of sums", len(all), 2); len(all) == 2 {
			wantEqual(t, "the first bucket", all[0].Bucket, 0)
			wantEqual(t, "its count", all[0].Seq, 1<<40)
		}
		return err
	})

	key := newKey(t, "signed", 2)
	key.MAC = "k"
	change(t, st, func(tx store.Tx) error {
		for _, err := range []error{
			tx.CreateKey(ctx, key),
			tx.CreatePrincipal(ctx, access.Principal{ID: "p1", Name: "eve", Role: "owner", Created: at(0), MAC: "p"}),
			tx.PutToken(ctx, access.Token{ID: "t1", PrincipalID: "p1", Created: at(0), MAC: "t"}),
			tx.PutPolicy(ctx, keys.Policy{Name: "q", Key: "signed", Created: at(0), MAC: "r"}),
			tx.CreateIncident(ctx, incidents.Incident{ID: "i1", Type: "other", Severity: "low", State: incidents.Open, Opened: at(0), MAC: "i"}),
			tx.AddEntry(ctx, incidents.Entry{Incident: "i1", Number: 12, Kind: "note", At: at(0), MAC: "e"}),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	want := map[store.SignedRow]int{
		{Table: "keys", ID: string(key.ID[:]), Name: "signed", MAC: "k"}: 1,
		{Table: "principals", ID: "p1", Name: "eve", MAC: "p"}:           1,
		{Table: "tokens", ID: "t1", Name: "t1", MAC: "t"}:                1,
		{Table: "policies", ID: "q", Name: "q", MAC: "r"}:                1,
		{Table: "incidents", ID: "i1", Name: "i1", MAC: "i"}:             1,
		{Table: "incident_entries", ID: "i1/12", Name: "i1", MAC: "e"}:   1,
	}
	view(t, st, func(tx store.Tx) error {
		got := map[store.SignedRow]int{}
		err := tx.EachSignedRow(ctx, func(r store.SignedRow) error { got[r]++; return nil })
		if !maps.Equal(got, want) {
			t.Errorf("the walk finds %v, want %v", got, want)
		}
		return err
	})

	// A shard that a process of an earlier release holds says so, until it is taken anew.
	h := acquire(t, st, "n", at(0), time.Hour)
	kept := func(want bool, what string) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.SumsKept(ctx, at(1))
			wantEqual(t, what, got, want)
			return err
		})
	}
	kept(true, "sums are kept by who took the shard")
	change(t, st, func(tx store.Tx) error {
		_, err := tx.SQL().Exec(`UPDATE audit_shards SET epoch = epoch + 1 WHERE shard = 0`) // as an earlier release takes it
		return err
	})
	kept(false, "sums are kept by an earlier release")
	change(t, st, func(tx store.Tx) error { return tx.RenewShard(ctx, h.Shard, h.Epoch+1, at(0)) })
	kept(true, "sums are kept when that one is gone")
}
