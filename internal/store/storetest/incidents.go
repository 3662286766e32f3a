package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/store"
)

func newIncident(n int) incidents.Incident {
	return incidents.Incident{
		ID: fmt.Sprintf("inc-%024d", n), Type: incidents.DeviceLoss, Severity: incidents.Critical, State: incidents.Open,
		Reason: "laptop stolen, 笔记本", Details: "two\nlines", Emergency: true, Job: "j",
		Versions: []incidents.Version{{Key: "phi", KeyID: envelope.KeyID{1, 2}, Number: 3}},
		Targets:  []incidents.Target{{Key: "phi", KeyID: envelope.KeyID{1, 2}, From: 3, Last: 4}, {Key: "pii", KeyID: envelope.KeyID{9}, From: 1, Last: 1}},
		Opened:   at(n), OpenedBy: "ann", Revision: 1, MAC: "m",
	}
}

func testIncidents(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	a, b, c := newIncident(1), newIncident(2), newIncident(3)
	b.Versions, b.Targets, b.Emergency = nil, nil, false
	change(t, st, func(tx store.Tx) error {
		for _, i := range []incidents.Incident{b, c, a} {
			i.Revision = 77 // the store counts by itself
			if err := tx.CreateIncident(ctx, i); err != nil {
				return err
			}
		}
		wantCode(t, tx.CreateIncident(ctx, a), api.CodeConflict, "a taken id")
		return nil
	})
	list := func(f incidents.Filter, want ...incidents.Incident) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Incidents(ctx, f)
			wantEqual(t, "the incidents", got, want)
			for _, i := range want {
				one, err := tx.Incident(ctx, i.ID)
				wantEqual(t, "the incident", one, i)
				if err != nil {
					return err
				}
			}
			return err
		})
	}
	list(incidents.Filter{}, c, b, a)
	list(incidents.Filter{Limit: 2}, c, b)
	list(incidents.Filter{After: b.ID}, a)

	closed := b
	closed.State, closed.Closed, closed.ClosedBy, closed.ClosedReason, closed.Entries, closed.Job, closed.MAC = incidents.Closed, at(9), "bob", "done", 4, "k", "n"
	change(t, st, func(tx store.Tx) error { return tx.UpdateIncident(ctx, closed) })
	refused(t, st, api.CodeConflict, "a stale revision", func(tx store.Tx) error { return tx.UpdateIncident(ctx, closed) })
	refused(t, st, api.CodeConflict, "updating nothing", func(tx store.Tx) error { return tx.UpdateIncident(ctx, newIncident(9)) })
	refused(t, st, api.CodeNotFound, "an incident that isn't there", func(tx store.Tx) error { _, err := tx.Incident(ctx, "inc-x"); return err })
	closed.Revision++
	list(incidents.Filter{}, c, closed, a)
	list(incidents.Filter{State: incidents.Open}, c, a)
	list(incidents.Filter{State: incidents.Closed}, closed)
	view(t, st, func(tx store.Tx) error {
		n, err := tx.CountIncidents(ctx)
		wantEqual(t, "the counts", n, map[incidents.State]int{incidents.Open: 2, incidents.Closed: 1})
		return err
	})
}

func testIncidentEntries(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	i := newIncident(1)
	var want []incidents.Entry
	for n, kind := range incidents.Kinds() {
		e := incidents.Entry{Incident: i.ID, Number: int64(n) + 1, Kind: kind, At: epoch.Add(time.Duration(n) * time.Minute), By: "ann", Text: "text\nü", MAC: "m"}
		if kind != incidents.Note {
			e.Data = []byte{0, 'x', 0xff}
		}
		want = append(want, e)
	}
	change(t, st, func(tx store.Tx) error {
		if err := tx.CreateIncident(ctx, i); err != nil {
			return err
		}
		for n := len(want) - 1; n >= 0; n-- {
			if err := tx.AddEntry(ctx, want[n]); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, st, func(tx store.Tx) error {
		got, err := tx.Entries(ctx, i.ID)
		wantEqual(t, "the entries", got, want)
		none, err2 := tx.Entries(ctx, "inc-none")
		wantEqual(t, "the entries of nothing", len(none), 0)
		if err == nil {
			err = err2
		}
		return err
	})
	refused(t, st, api.CodeConflict, "a number that is taken", func(tx store.Tx) error { return tx.AddEntry(ctx, want[0]) })
	orphan := want[0]
	orphan.Incident = "inc-none"
	refused(t, st, api.CodeNotFound, "an entry of nothing", func(tx store.Tx) error { return tx.AddEntry(ctx, orphan) })
}
