package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

func testSchedules(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	s := jobs.Schedule{Name: "b", Kind: "check", Args: []byte(`{"x":1}`), Cron: "0 2 * * *", Zone: "UTC", Origin: "shipped", NextRun: at(10)}
	list := func(want ...jobs.Schedule) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Schedules(ctx)
			wantEqual(t, "the schedules", got, want)
			return err
		})
	}
	fire := func(seen, due, next int, job string) (ours bool) {
		t.Helper()
		change(t, st, func(tx store.Tx) (err error) {
			ours, err = tx.Fire(ctx, "b", at(seen), at(due), at(next), job)
			return err
		})
		return ours
	}
	change(t, st, func(tx store.Tx) error { return tx.PutSchedule(ctx, s) })
	list(s)
	if !fire(10, 11, 20, "job-1") || fire(10, 11, 30, "job-2") {
		t.Error("a time is not served exactly once")
	}
	s.NextRun, s.LastRun, s.LastJob = at(20), at(11), "job-1"
	list(s)
	changed := jobs.Schedule{Name: "b", Kind: "other", Cron: "1 * * * *", Zone: "Europe/Zurich", Origin: "policy/x", NextRun: at(15)}
	change(t, st, func(tx store.Tx) error { return tx.PutSchedule(ctx, changed) })
	changed.LastRun, changed.LastJob = at(11), "job-1"
	list(changed)
	for _, seconds := range []int{16, 14, 15} {
		change(t, st, func(tx store.Tx) error { return tx.BringForward(ctx, "b", at(seconds)) })
	}
	change(t, st, func(tx store.Tx) error { return tx.BringForward(ctx, "nothing", at(0)) })
	changed.NextRun = at(14)
	a := jobs.Schedule{Name: "a", Kind: "check", Cron: "@daily"}
	change(t, st, func(tx store.Tx) error { return tx.PutSchedule(ctx, a) })
	list(a, changed)
	change(t, st, func(tx store.Tx) error { return tx.DeleteSchedule(ctx, "b") })
	change(t, st, func(tx store.Tx) error { return tx.DeleteSchedule(ctx, "b") })
	list(a)
}

func testPolicies(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	period, none, no := 30*24*time.Hour, "", false
	p := keys.Policy{Name: "p", Purpose: "phi", Environment: "production", Created: epoch, Actor: "somebody", MAC: "m", Origin: keys.OriginSet,
		Rule: keys.Rule{Period: &period, Schedule: &none, Reencrypt: &no, Concurrency: 5, Zone: "Europe/Zurich"}}
	list := func(want ...keys.Policy) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Policies(ctx)
			wantEqual(t, "the policies", got, want)
			return err
		})
	}
	change(t, st, func(tx store.Tx) error { return tx.PutPolicy(ctx, p) })
	list(p)
	refused(t, st, api.CodeConflict, "a second policy about the same keys", func(tx store.Tx) error {
		twin := p
		twin.Name = "q"
		return tx.PutPolicy(ctx, twin)
	})
	p.Rule, p.Key, p.MAC = keys.Rule{Attempts: 2}, "k", "n"
	change(t, st, func(tx store.Tx) error { return tx.PutPolicy(ctx, p) })
	list(p)
	refused(t, st, api.CodeNotFound, "removing nothing", func(tx store.Tx) error { return tx.DeletePolicy(ctx, "q") })
	change(t, st, func(tx store.Tx) error { return tx.DeletePolicy(ctx, "p") })
	list()
}

func testRotations(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	a, b, gone := newKey(t, "a", 4), newKey(t, "b", 2), newKey(t, "gone", 1)
	a.ByPolicy, a.Versions[3].Sample = true, []byte{1, 0, 2}
	a.Versions[3].ForceBy, a.Versions[3].ForceAt = "someone", at(5)
	b.Purpose, b.Cryptoperiod.Period, b.Cryptoperiod.Warn = keys.PurposeData, 90*time.Hour, 80*time.Hour
	if _, err := gone.Move(1, keys.Suspended, at(9), "", "", 0); err != nil {
		t.Fatal(err)
	}
	want := []keys.Rotation{}
	change(t, st, func(tx store.Tx) error {
		for _, k := range []keys.Key{a, b, gone} {
			if err := tx.CreateKey(ctx, k); err != nil {
				return err
			}
		}
		want = nil
		for n := uint32(2); n <= 4; n++ {
			r := keys.Rotation{KeyID: a.ID, Key: "a", OldVersion: n - 1, NewVersion: n, Reason: "r", Actor: "x", Source: "scheduler", Incident: "i", At: at(int(n)), Duration: 1500 * time.Microsecond}
			want = append([]keys.Rotation{r}, want...)
			if err := tx.AddRotation(ctx, r); err != nil {
				return err
			}
		}
		r := keys.Rotation{KeyID: b.ID, Key: "b", NewVersion: 2, At: at(3)}
		if err := tx.AddRotation(ctx, r); err != nil {
			return err
		}
		if err := tx.NoteSelfCheck(ctx, a.ID, 4, keys.SelfCheckOK); err != nil {
			return err
		}
		if err := tx.NoteSelfCheck(ctx, a.ID, 1, keys.SelfCheckOK); err != nil { // older than the history
			return err
		}
		for range 2 {
			if err := tx.AddRowsMoved(ctx, a.ID, 3, 21); err != nil {
				return err
			}
		}
		return nil
	})
	want[0].SelfCheck, want[1].Rows = keys.SelfCheckOK, 42
	view(t, st, func(tx store.Tx) error {
		got, err := tx.Rotations(ctx, a.ID, keys.Rotation{}, 10)
		wantEqual(t, "the history of a key", got, want)
		if err != nil {
			return err
		}
		got, err = tx.Rotations(ctx, a.ID, want[0], 1)
		wantEqual(t, "its second page", got, want[1:2])
		if err != nil {
			return err
		}
		var all []keys.Rotation
		for before := (keys.Rotation{}); ; before = all[len(all)-1] {
			page, err := tx.Rotations(ctx, envelope.KeyID{}, before, 1)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
		}
		if len(all) != 4 || all[0].NewVersion != 4 || all[3].NewVersion != 2 || all[3].Key != "a" {
			t.Errorf("the history of all, page by page: %+v", all)
		}
		var active []keys.ActiveVersion
		err = tx.EachActive(ctx, func(v *keys.ActiveVersion) error { active = append(active, *v); return nil })
		slices.SortFunc(active, func(a, b keys.ActiveVersion) int { return strings.Compare(a.Key, b.Key) })
		wantEqual(t, "the active versions", active, []keys.ActiveVersion{
			{Key: "a", Purpose: keys.PurposePHI, ByPolicy: true, Number: 4, Activated: a.Versions[3].Activated},
			{Key: "b", Purpose: keys.PurposeData, Cryptoperiod: keys.Cryptoperiod{Period: 90 * time.Hour, Warn: 80 * time.Hour}, Number: 2, Activated: b.Versions[1].Activated},
		})
		seen, enough := 0, errors.New("enough")
		if err := tx.EachActive(ctx, func(*keys.ActiveVersion) error { seen++; return enough }); err != enough || seen != 1 {
			t.Errorf("a walk that ends at the first: %d seen, %v", seen, err)
		}
		stored, kerr := tx.KeyByName(ctx, "a")
		if v := stored.Versions[3]; !stored.ByPolicy || string(v.Sample) != "\x01\x00\x02" || v.ForceBy != "someone" || !v.ForceAt.Equal(at(5)) || kerr != nil {
			t.Errorf("%+v %v", v, kerr)
		}
		return err
	})
}
