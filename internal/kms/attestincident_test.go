package kms

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/store"
)

// opened is an incident with three entries.
func (h *house) opened() incidents.Incident {
	h.t.Helper()
	ctx := context.Background()
	i := incidents.Incident{
		ID: "inc-000000000000000000000000", Type: incidents.Other, Severity: incidents.Low, State: incidents.Open, Reason: "x", Opened: h.clock.Now(), OpenedBy: "ann",
		Versions: []incidents.Version{{Key: "phi", KeyID: envelope.KeyID{1}, Number: 1}}, Entries: 3,
	}
	h.must(h.st.Change(ctx, func(tx store.Tx) error {
		if err := tx.CreateIncident(ctx, i); err != nil {
			return err
		}
		for n := range int64(3) {
			if err := tx.AddEntry(ctx, incidents.Entry{Incident: i.ID, Number: n + 1, Kind: incidents.Note, At: h.clock.Now(), By: "ann", Text: fmt.Sprint("entry ", n)}); err != nil {
				return err
			}
		}
		return nil
	}))
	return i
}

func (h *house) readIncident(id string) error {
	ctx := context.Background()
	return h.st.View(ctx, func(tx store.Tx) error { return second(tx.Entries(ctx, id)) })
}

// Whoever writes to the database can't close an incident, change what it is about, or change, add, swap or take away what was
// written down in it; doctor finds that he tried.
func TestForgedIncidents(t *testing.T) {
	for name, forge := range map[string]string{
		"closed":           `UPDATE incidents SET state = 'closed', closed = 1, closed_by = 'ann'`,
		"another reason":   `UPDATE incidents SET reason = 'nothing'`,
		"no version":       `UPDATE incidents SET versions = '[]'`,
		"a target":         `UPDATE incidents SET targets = versions`,
		"another note":     `UPDATE incident_entries SET text = 'all fine' WHERE number = 2`,
		"another author":   `UPDATE incident_entries SET by_name = 'bob' WHERE number = 2`,
		"another time":     `UPDATE incident_entries SET at = at + 1 WHERE number = 3`,
		"a missing note":   `DELETE FROM incident_entries WHERE number = 2`,
		"the last one":     `DELETE FROM incident_entries WHERE number = 3`,
		"all of them":      `DELETE FROM incident_entries`,
		"one more":         `INSERT INTO incident_entries SELECT incident_id, 4, kind, at, by_name, text, data, mac FROM incident_entries WHERE number = 3`,
		"swapped":          `UPDATE incident_entries SET number = CASE number WHEN 1 THEN 12 WHEN 2 THEN 11 ELSE 13 END`,
		"fewer counted":    `UPDATE incidents SET entries = 2`,
		"fewer altogether": `UPDATE incidents SET entries = 0`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.create(api.CreateKeyRequest{Name: "phi"})
			i := h.opened()
			h.must(h.readIncident(i.ID))
			h.must(second(h.gate.Checkpoint(t.Context())))
			h.forge(forge)
			wants(t, h.readIncident(i.ID), api.CodeIntegrity)
			if detail := h.complaint("incidents", false); !strings.Contains(detail, i.ID) {
				t.Errorf("doctor: %s", detail)
			}
		})
	}
}

// No row of another incident, or of what an incident was, stands in for one; and nothing is written over a forged one.
func TestIncidentRowsAreNotExchanged(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	i := h.opened()
	other := i
	other.ID, other.Entries = "inc-111111111111111111111111", 0
	h.must(h.st.Change(ctx, func(tx store.Tx) error { return tx.CreateIncident(ctx, other) }))
	h.forge(`UPDATE incident_entries SET incident_id = 'inc-111111111111111111111111'`)
	h.forge(`UPDATE incidents SET entries = 3, mac = (SELECT mac FROM incidents WHERE id = $1) WHERE id = $2`, i.ID, other.ID)
	wants(t, h.readIncident(other.ID), api.CodeIntegrity)
	wants(t, h.st.Change(ctx, func(tx store.Tx) error { other.Revision = 1; return tx.UpdateIncident(ctx, other) }), api.CodeIntegrity)
}

// An emergency does to a key what is left to do, and nothing twice.
func TestRotateInEmergency(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.must(second(h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})))
	text := h.encrypt("phi", "x", nil)
	id := h.stored("phi").ID
	e := Emergency{Incident: "inc-1", Job: "j", Key: "phi", KeyID: id, Last: 2, Compromised: []uint32{1, 2}, Actor: "ann", Reason: "stolen"}
	also := 0
	run := func(e Emergency) (bool, error) {
		return h.svc.RotateInEmergency(ctx, e, func(context.Context, store.Tx) error { also++; return nil })
	}
	changed, err := run(e)
	h.must(err)
	k := h.stored("phi")
	if !changed || also != 1 || len(k.Versions) != 3 || k.Versions[0].State != "compromised" || k.Versions[1].State != "compromised" || k.Versions[2].State != "active" || k.Versions[1].Actor != "ann" {
		t.Errorf("changed %v, also %d: %+v", changed, also, k.Versions)
	}
	ev := h.lastEvent()
	if ev.Type != "key_rotation" || ev.Action != "rotated" || ev.User != "system" || ev.Reason != "stolen" || ev.Version != 3 || ev.Details["incident"] != "inc-1" ||
		ev.Details["emergency"] != true || ev.Details["scope"] != "phi:1 phi:2" || ev.Details["state"] != "compromised" || ev.Details["old_version"] != 2.0 {
		t.Errorf("%s", ev.raw)
	}
	count := len(h.events())
	if changed, err := run(e); changed || err != nil || also != 1 || len(h.events()) != count || len(h.stored("phi").Versions) != 3 {
		t.Errorf("once more: changed %v, %v", changed, err)
	}
	h.opens("phi", text, "x", nil, 2) // an owner may
	_, _, err = h.tryDecrypt(as(access.RoleApplication), "phi", text, nil)
	wants(t, err, api.CodeDenied)

	// One that somebody rotated meanwhile is only marked; one that somebody made active again is rotated all the same.
	next := e
	next.Last, next.Compromised = 2, []uint32{3}
	h.must(second(h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})))
	if changed, err := run(next); !changed || err != nil || len(h.stored("phi").Versions) != 4 {
		t.Errorf("rotated meanwhile: %v, %v", changed, err)
	}
	if ev := h.lastEvent(); ev.Type != "key_state" || ev.Action != "compromised" || ev.Version != 3 {
		t.Errorf("%s", ev.raw)
	}
	next.Compromised = []uint32{4}
	if changed, err := run(next); !changed || err != nil || len(h.stored("phi").Versions) != 5 {
		t.Errorf("active and compromised: %v, %v", changed, err)
	}
	for name, bad := range map[string]Emergency{
		"another key": {Key: "phi", KeyID: envelope.KeyID{9}, Last: 9},
		"no version":  {Key: "phi", KeyID: id, Compromised: []uint32{9}},
		"no key":      {Key: "nokey", KeyID: id},
	} {
		if changed, err := run(bad); changed || err == nil {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
	if also != 3 {
		t.Errorf("also ran %d times", also)
	}
}
