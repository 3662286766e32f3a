package kms

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// After a rotation every older version opens its sample; one that doesn't stops what follows and raises an alert, and no
// version is touched.
func TestSelfCheck(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	for range 3 {
		_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
		h.must(err)
	}
	for _, v := range h.stored("phi").Versions {
		if v.Sample == nil {
			t.Errorf("version %d has no sample", v.Number)
		}
	}
	h.must(h.svc.SelfCheck(t.Context(), "phi", 2))
	if e := h.lastEvent(); e.Action != "self_checked" || !e.Success || e.Details["items"] != 4.0 {
		t.Errorf("%s", e.raw)
	}
	// A sample under another version than its own is as bad as a broken one. Nobody but keyturn can store it: the row's MAC
	// would give it away earlier.
	k := h.stored("phi")
	k.Versions[1].Sample = k.Versions[2].Sample
	h.must(h.st.Change(t.Context(), func(tx store.Tx) error { return tx.UpdateKey(t.Context(), k) }))
	before := h.stored("phi")
	err := h.svc.SelfCheck(t.Context(), "phi", 2)
	wants(t, err, api.CodeIntegrity)
	if !strings.Contains(err.Error(), "phi") {
		t.Errorf("the error doesn't name the key: %v", err)
	}
	var alert bool
	for _, e := range h.events() {
		alert = alert || e.Type == "alert" && e.Action == "self_check_failed" && e.Resource == "key/phi"
	}
	if !alert {
		t.Error("no alert was recorded")
	}
	after := h.stored("phi")
	for i, v := range after.Versions {
		if v.State != before.Versions[i].State || string(v.Wrapped) != string(before.Versions[i].Wrapped) {
			t.Errorf("version %d was touched", v.Number)
		}
	}
}

// Every rotation is in the history, whoever made it; making a key is none.
func TestRotationsAreInTheHistory(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{Reason: "by hand"})
	h.must(err)
	_, err = h.svc.RotateDue(t.Context(), "phi", 2, "scheduled_rotation", SystemName)
	h.must(err)
	_, err = h.svc.RotateDue(t.Context(), "phi", 2, "scheduled_rotation", SystemName)
	wants(t, err, api.CodeConflict, "ifVersion")
	_, err = h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{Reason: "leaked"})
	h.must(err)
	var list []keys.Rotation
	h.must(h.st.View(t.Context(), func(tx store.Tx) (err error) {
		list, err = tx.Rotations(t.Context(), h.stored("phi").ID, keys.Rotation{}, 10)
		return err
	}))
	if len(list) != 3 {
		t.Fatalf("%+v", list)
	}
	byVersion := map[uint32]keys.Rotation{}
	for _, r := range list {
		byVersion[r.NewVersion] = r
	}
	if r := byVersion[2]; r.OldVersion != 1 || r.Reason != "by hand" || r.Source != "api" || r.Actor != "some-owner" {
		t.Errorf("%+v", r)
	}
	if r := byVersion[3]; r.OldVersion != 2 || r.Source != SourceScheduler || r.Actor != SystemName {
		t.Errorf("%+v", r)
	}
}

// What is to follow a rotation is decided in its transaction: when that can't be stored, nothing was rotated.
func TestWhatFollowsIsPartOfTheRotation(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	broken := errors.New("no room")
	h.svc.cfg.Rotated = func(context.Context, store.Tx, keys.Rotation) error { return broken }
	if _, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if k := h.stored("phi"); len(k.Versions) != 1 {
		t.Errorf("%d versions", len(k.Versions))
	}
}

// A policy's grace keeps an old version from being destroyed for a while; a compromised one has none, and who made the key
// with a period of its own isn't bound by the shipped grace.
func TestGrace(t *testing.T) {
	h := newHouse(t, options{})
	for name, period := range map[string]string{"phi": "", "own": "90d", "bad": ""} {
		h.create(api.CreateKeyRequest{Name: name, Purpose: "phi", Period: period})
		h.clock.Add(time.Minute)
		_, err := h.svc.Rotate(t.Context(), owner(), name, api.RotateKeyRequest{})
		h.must(err)
	}
	_, err := h.svc.Compromise(t.Context(), owner(), "bad", api.VersionStateRequest{Version: 1, Reason: "leaked"})
	h.must(err)
	destroy := func(name string) error {
		_, err := h.svc.Destroy(t.Context(), owner(), name, api.VersionStateRequest{Version: 1})
		return err
	}
	h.must(destroy("own"))
	h.must(destroy("bad"))
	err = destroy("phi")
	wants(t, err, api.CodeInUse, "version")
	if !strings.Contains(err.Error(), "7d") || !strings.Contains(fault.NextOf(err), "2026-01-22") {
		t.Errorf("%v; %s", err, fault.NextOf(err))
	}
	h.clock.Add(7 * 24 * time.Hour)
	h.must(destroy("phi"))
}

// Two people, within a day, each with the right: then a version goes although something depends on it. One person never
// suffices, however often he asks.
func TestForcedDestructionTakesTwo(t *testing.T) {
	h := newHouse(t, options{quiet: time.Hour})
	h.create(api.CreateKeyRequest{Name: "k"})
	text := h.encrypt("k", "x", nil)
	_, err := h.svc.Rotate(t.Context(), owner(), "k", api.RotateKeyRequest{})
	h.must(err)
	h.opens("k", text, "x", nil, 1)
	h.deps.found = []Dependent{{Resource: "dataset/patients", Rows: 12}}
	force := api.VersionStateRequest{Version: 1, Force: true, Reason: "subject asked for erasure"}
	ask := func(c *access.Caller, in api.VersionStateRequest) (api.KeyVersion, error) {
		k, err := h.svc.Destroy(t.Context(), c, "k", in)
		if err != nil {
			return api.KeyVersion{}, err
		}
		return k.Versions[0], nil
	}
	first, second := h.person("first", owner()), h.person("second", owner())
	h.clock.Add(access.Settled)

	_, err = ask(first, api.VersionStateRequest{Version: 1})
	wants(t, err, api.CodeInUse)
	_, err = ask(first, api.VersionStateRequest{Version: 1, Force: true})
	wants(t, err, api.CodeInvalid, "reason")
	_, err = ask(as(access.RoleKeyAdministrator), force)
	wants(t, err, api.CodeDenied)
	for range 3 {
		v, err := ask(first, force)
		h.must(err)
		if v.State != "deactivated" || v.ForceAskedAt == nil || v.Forced {
			t.Fatalf("one person alone: %+v", v)
		}
	}
	if e := h.lastEvent(); e.Action != "destroy_force_asked" || !e.Success {
		t.Errorf("%s", e.raw)
	}
	if alerts := h.forceAlerts(); alerts != 3 {
		t.Errorf("%d alerts", alerts)
	}
	h.clock.Add(keys.ForceWithin + time.Second)
	v, err := ask(second, force)
	h.must(err)
	if v.State != "deactivated" {
		t.Fatalf("the first one's wish was too old: %+v", v)
	}
	h.clock.Add(keys.ForceWithin)
	v, err = ask(first, force)
	h.must(err)
	if v.State != "destroy-scheduled" || !v.Forced {
		t.Fatalf("two people: %+v", v)
	}
	if e := h.lastEvent(); e.Action != "destroy_scheduled" || e.Details["principal"] != "second" || e.Reason != force.Reason {
		t.Errorf("%s", e.raw)
	}
	_, err = h.svc.Undestroy(t.Context(), owner(), "k", api.VersionStateRequest{Version: 1})
	h.must(err)
	if v := h.stored("k").Versions[0]; v.Forced() || v.ForceBy != "" {
		t.Error("taking it back leaves the first wish standing")
	}
	_, err = ask(first, force)
	h.must(err)
	_, err = ask(second, force)
	h.must(err)
	h.clock.Add(31 * 24 * time.Hour)
	if n, err := h.svc.RunDue(t.Context()); n != 1 || err != nil {
		t.Errorf("%d destroyed, %v: what depends on a forced version doesn't keep it", n, err)
	}
	if v := h.stored("k").Versions[0]; v.State != keys.Destroyed || v.Wrapped != nil || v.Sample != nil {
		t.Errorf("%+v", v)
	}
}

// Two identities of one person are one person: one that was made for it, or whose token was issued by the other, or that is younger
// than the wish, or that nobody stands behind.
func TestForcedDestructionTakesTwoPeople(t *testing.T) {
	force := api.VersionStateRequest{Version: 1, Force: true, Reason: "x"}
	type people struct{ first, second *access.Caller }
	for name, c := range map[string]struct {
		prepare func(h *house, p *people) // a day before
		between func(h *house, p *people) // between the two wishes
		wants   string                    // empty: they are two people
	}{
		"two":                  {},
		"made by the first":    {prepare: func(h *house, p *people) { p.second = h.person("shadow", p.first) }, wants: "made principal shadow"},
		"made by the second":   {prepare: func(h *house, p *people) { p.first = h.person("shadow", p.second) }, wants: "made principal shadow"},
		"made since":           {between: func(h *house, p *people) { p.second = h.person("shadow", owner()) }, wants: "principal shadow, or its token"},
		"a token by the first": {prepare: func(h *house, p *people) { h.token("second", p.first) }, wants: "first issued a token of principal second"},
		"laundered": {prepare: func(h *house, p *people) {
			h.token("second", p.first)
			h.token("second", p.second)
		}, wants: "first issued a token of principal second"},
		"a token by the second":       {prepare: func(h *house, p *people) { h.token("first", p.second) }, wants: "second issued a token of principal first"},
		"a token of its own":          {prepare: func(h *house, p *people) { h.token("second", p.second) }},
		"a token since":               {between: func(h *house, p *people) { h.token("second", owner()) }, wants: "principal second, or its token"},
		"the first one's token since": {between: func(h *house, p *people) { h.token("first", p.first) }, wants: "principal first, or its token"},
		"the first one is out":        {between: func(h *house, _ *people) { h.must(second(h.svc.DisablePrincipal(h.t.Context(), owner(), "first"))) }, wants: "principal first can't sign in"},
		"the socket": {between: func(_ *house, p *people) {
			local := *p.second
			local.Method = "peer"
			p.second = &local
		}, wants: "owns the data directory"},
		"in this process": {between: func(_ *house, p *people) {
			local := *p.second
			local.Method = "embedded"
			p.second = &local
		}, wants: "owns the data directory"},
		"nobody of this store": {between: func(_ *house, p *people) { p.second = owner() }, wants: "no principal of this store"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.create(api.CreateKeyRequest{Name: "k"})
			h.must(second(h.svc.Rotate(t.Context(), owner(), "k", api.RotateKeyRequest{})))
			p := people{h.person("first", owner()), h.person("second", owner())}
			if c.prepare != nil {
				c.prepare(h, &p)
			}
			if _, err := h.svc.Destroy(t.Context(), p.first, "k", force); fault.CodeOf(err) != api.CodeDenied || fault.NextOf(err) == "" {
				t.Errorf("one who was made just now: %v", err)
			}
			h.clock.Add(access.Settled)
			h.must(second(h.svc.Destroy(t.Context(), p.first, "k", force)))
			if c.between != nil {
				c.between(h, &p)
			}
			_, err := h.svc.Destroy(t.Context(), p.second, "k", force)
			if v := h.stored("k").Versions[0]; v.Forced() != (c.wants == "") || (err == nil) != v.Forced() {
				t.Errorf("forced: %v, %v", v.Forced(), err)
			}
			if c.wants != "" && (fault.CodeOf(err) != api.CodeDenied || !strings.Contains(err.Error(), c.wants) || fault.NextOf(err) == "") {
				t.Errorf("%v; %s", err, fault.NextOf(err))
			}
			if alerts := h.forceAlerts(); alerts != 3 {
				t.Errorf("%d alerts of three wishes", alerts)
			}
		})
	}
}

// person makes an owner, and is the one who signs in as it.
func (h *house) person(name string, by *access.Caller) *access.Caller {
	h.t.Helper()
	made, err := h.svc.CreatePrincipal(h.t.Context(), by, api.CreatePrincipalRequest{Name: name, Role: access.RoleOwner, Scope: []string{"*"}})
	h.must(err)
	p, err := Directory{h.st}.PrincipalByID(h.t.Context(), made.ID)
	h.must(err)
	return &access.Caller{Method: "token", RequestID: "req", Principal: &p}
}

func (h *house) token(name string, by *access.Caller) {
	h.t.Helper()
	h.must(second(h.svc.NewToken(h.t.Context(), by, name)))
}

// forceAlerts counts the alerts that somebody asked for a forced destruction.
func (h *house) forceAlerts() (n int) {
	h.t.Helper()
	for _, e := range h.events() {
		if e.Type == "alert" && e.Action == AlertForce && e.User != "system" {
			n++
		}
	}
	return n
}

// While no master key can be reached, what is open serves for the stated time and no longer; it goes on when one is back.
func TestMasterOutage(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	h.must(second(h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})))
	h.config.openErr = fault.New(api.CodeUnavailable, "the provider is away")
	h.ring.Limit(time.Hour)
	away := h.svc.ReachMaster(t.Context())
	wants(t, away, api.CodeUnavailable)
	if text := fault.MessageOf(away); !strings.Contains(text, "file:///first") || !strings.Contains(text, "file:///second") {
		t.Errorf("none can be reached, and not each is named: %s", text)
	}
	h.opens("phi", text, "x", nil, 1)
	h.ring.Limit(time.Nanosecond)
	_, _, err := h.tryDecrypt(owner(), "phi", text, nil)
	wants(t, err, api.CodeUnavailable)
	_, err = h.tryEncrypt("phi", "y", nil)
	wants(t, err, api.CodeUnavailable)
	h.ring.Limit(time.Hour)
	h.ring.Shut() // as the server does then
	for range 2 { // also when somebody asks for the store's keys again
		_, _, err = h.tryDecrypt(owner(), "phi", text, nil)
		wants(t, err, api.CodeUnavailable)
		wants(t, h.ring.Open(t.Context()), api.CodeUnavailable)
	}
	h.config.openErr = nil
	fresh, err := h.config.Open(t.Context(), "file:///first")
	h.must(err)
	h.must(h.ring.Use(t.Context(), []keyring.MasterKey{fresh}))
	h.opens("phi", text, "x", nil, 1)
	h.must(h.svc.ReachMaster(t.Context()))
	h.config.openErr = nil
	wrong, err := h.config.Open(t.Context(), "file:///another")
	h.must(err)
	wants(t, h.ring.Reaches(t.Context(), wrong), api.CodeNotFound)
}
