package kms

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// A master key that one node added survives whatever another one does that was started before and doesn't have it; only
// saying that it goes takes it away.
func TestANodeKeepsTheMasterKeysOfOthers(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	other := h.node("other") // has the first
	_, err := h.svc.AddMaster(ctx, here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	fingerprint := masterKey(t, "second").ID()

	shown := func(elsewhere []api.MasterKeyElsewhere) {
		t.Helper()
		if len(elsewhere) != 1 || elsewhere[0].URL != "file:///second" || elsewhere[0].Fingerprint != fingerprint || elsewhere[0].KEKs != len(keys.KEKPurposes()) || elsewhere[0].Detail == "" {
			t.Errorf("elsewhere: %+v", elsewhere)
		}
		h.must(h.opensWith("second"))
		if !h.mastersOK() {
			t.Error("the node that has both has one that doesn't open everything")
		}
	}
	list, err := other.Masters(ctx, owner())
	h.must(err)
	shown(list.Elsewhere)
	if ok, detail, fix := other.checkElsewhere(ctx); ok || !strings.Contains(detail, "file:///second") || !strings.Contains(fix, "keyturn master remove file:///second") {
		t.Errorf("doctor: %v %q %q", ok, detail, fix)
	}
	if ok, detail, fix := h.svc.checkElsewhere(ctx); !ok || fix != "" {
		t.Errorf("doctor of the node that has both: %v %q", ok, detail)
	}
	out, err := other.RotateMasters(ctx, owner(), api.RotateMasterRequest{})
	h.must(err)
	shown(out.Elsewhere)
	out, err = other.AddMaster(ctx, here(), api.MasterKeyRequest{URL: "file:///third"})
	h.must(err)
	shown(out.Elsewhere)
	h.must(h.opensWith("third"))
	out, err = other.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///third"})
	h.must(err)
	shown(out.Elsewhere)
	wants(t, h.opensWith("third"), api.CodeIntegrity)

	before, err := Directory{h.st}.KEKs(ctx)
	h.must(err)
	_, err = other.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true})
	wants(t, err, api.CodeConflict)
	if !strings.Contains(err.Error(), "file:///second") || !strings.Contains(fault.NextOf(err), "master remove file:///second") {
		t.Errorf("%v, next %q", err, fault.NextOf(err))
	}
	if after, err := (Directory{h.st}).KEKs(ctx); err != nil || !sameWrappings(before, after) || len(after) != len(before) {
		t.Errorf("a refused rotation changed the key-encryption keys: %v", err)
	}
	_, err = h.svc.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true}) // the node that has both
	h.must(err)
	h.must(h.opensWith("second"))
	h.must(h.opensWith("first"))

	saved := slices.Clone(h.config.saved)
	for _, name := range []string{"file:///absent", strings.Repeat("0", 32)} {
		_, err = other.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: name})
		wants(t, err, api.CodeNotFound, "url")
	}
	h.config.fixed = fault.New(api.CodeConflict, "the list comes from the environment") // it needn't change
	out, err = other.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	h.config.fixed = nil
	if len(out.Elsewhere) != 0 || !h.recorded("master_removed", "master_key", "file:///second") || !slices.Equal(saved, h.config.saved) {
		t.Errorf("%+v, saved %v", out, h.config.saved)
	}
	wants(t, h.opensWith("second"), api.CodeIntegrity)
	h.must(h.opensWith("first"))
	_, err = other.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	// The node that still names it can have it back, or let it go by itself.
	if h.mastersOK() {
		t.Error("a master key that was removed elsewhere is taken for whole")
	}
	_, err = h.svc.RotateMasters(ctx, owner(), api.RotateMasterRequest{})
	h.must(err)
	h.must(h.opensWith("second"))
	_, err = other.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: fingerprint})
	h.must(err)
	wants(t, h.opensWith("second"), api.CodeIntegrity)
}

// recorded says whether any node's part of the log has a success of this kind with this detail.
func (h *house) recorded(action, detail string, value any) bool {
	h.t.Helper()
	return slices.ContainsFunc(h.eventsOf(audit.AnyShard), func(e event) bool { return e.Success && e.Action == action && e.Details[detail] == value })
}

// changing is a doorway that lets something happen before the transaction of a change, once.
type changing struct {
	Doorway
	before func()
}

func (d *changing) Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error {
	if do := d.before; do != nil {
		d.before = nil
		do()
	}
	return d.Doorway.Change(ctx, c, in, change)
}

// A change of master keys that another node finishes in the midst of ours is neither undone by ours nor lost in it: ours
// happens on top of it, or not at all.
func TestMasterChangesOfTwoNodesMeet(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	other := h.node("other")
	door := &changing{Doorway: other.gate}
	other.gate = door
	ours := map[string]func() error{
		"rotate": func() error { return second(other.RotateMasters(ctx, owner(), api.RotateMasterRequest{})) },
		"keks":   func() error { return second(other.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true})) },
		"add":    func() error { return second(other.AddMaster(ctx, here(), api.MasterKeyRequest{URL: "file:///third"})) },
	}
	for what, do := range ours {
		door.before = func() {
			_, err := h.svc.AddMaster(ctx, here(), api.MasterKeyRequest{URL: "file:///second"})
			h.must(err)
		}
		if err := do(); fault.CodeOf(err) != api.CodeConflict || door.before != nil {
			t.Errorf("%s while another node adds: %v", what, err)
		}
		h.must(h.opensWith("second"))
		h.must(h.opensWith("first"))
		if what != "keks" { // which isn't begun while there is another node's
			door.before = func() {
				_, err := h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///second"})
				h.must(err)
			}
			if err := do(); fault.CodeOf(err) != api.CodeConflict || door.before != nil {
				t.Errorf("%s while another node removes: %v", what, err)
			}
		} else {
			_, err := h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///second"})
			h.must(err)
		}
		wants(t, h.opensWith("second"), api.CodeIntegrity)
		wants(t, h.opensWith("third"), api.CodeIntegrity)
		h.must(h.opensWith("first"))
	}
}

// A set of shares that was replaced opens nothing any more, also where another node has its key in a file, from a recovery.
func TestReplacedSharesLoseTheirPowerOnEveryNode(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	first := h.split(h.svc, 3, 2, false)
	h.config.others = map[string]func() keyring.MasterKey{"file:///recovered": func() keyring.MasterKey {
		var shares []keyring.EscrowShare
		for _, s := range first.Shares[:2] {
			share, err := keyring.ParseEscrowShare("share", slices.Clone(s.Text))
			h.must(err)
			shares = append(shares, share)
		}
		m, err := keyring.CombineShares(shares)
		h.must(err)
		k, err := keyring.Hold("file:///recovered", "file", m)
		h.must(err)
		return k
	}}
	other := h.node("other", "file:///recovered", keyring.EscrowURL)
	_, err := other.RotateMasters(ctx, owner(), api.RotateMasterRequest{})
	h.must(err)
	h.must(h.recovers(first, 1, 2))
	fresh := h.split(h.svc, 3, 2, true)
	wants(t, h.recovers(first, 1, 2), api.CodeIntegrity)
	h.must(h.recovers(fresh, 2, 3))
	// A node that doesn't name escrow:// can end it, and in no other way touch it.
	stranger := h.node("stranger")
	_, err = stranger.RotateMasters(ctx, owner(), api.RotateMasterRequest{})
	wants(t, err, api.CodeConflict)
	h.must(h.recovers(fresh, 2, 3))
	_, err = stranger.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: keyring.EscrowURL})
	h.must(err)
	if !h.recorded("master_removed", "escrow", fresh.Set) {
		t.Error("the set that went isn't named in the log")
	}
	wants(t, h.recovers(fresh, 2, 3), api.CodeIntegrity)
	_, err = stranger.Escrow(ctx, owner())
	wants(t, err, api.CodeNotFound)
	_, err = stranger.RotateMasters(ctx, owner(), api.RotateMasterRequest{})
	h.must(err)
}

// A master key isn't removed under other nodes that run unless whoever asks says that he knows; a node that was closed is
// none.
func TestRemovingUnderOtherNodes(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.svc.cfg.OtherNodes = h.gate.Others
	for _, url := range []string{"file:///second", "file:///third"} {
		_, err := h.svc.AddMaster(ctx, here(), api.MasterKeyRequest{URL: url})
		h.must(err)
	}
	other := h.node("other")
	_, err := h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///first"})
	wants(t, err, api.CodeInUse, "otherNodes")
	if !strings.Contains(err.Error(), "other") || !strings.Contains(fault.NextOf(err), "--yes") {
		t.Errorf("%v, next %q", err, fault.NextOf(err))
	}
	h.must(h.opensWith("first"))
	if h.recorded("master_removed", "master_key", "file:///first") || len(h.config.saved) != 3 {
		t.Errorf("saved %v", h.config.saved)
	}
	out, err := h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///first", OtherNodes: true})
	h.must(err)
	if len(out.OtherNodes) != 1 || out.OtherNodes[0] != "other" {
		t.Errorf("%+v", out)
	}
	// What the other says now is what helps there.
	list, err := other.VerifyMasters(ctx, owner())
	if err != nil || list.MasterKeys[0].OK || len(list.Elsewhere) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	_, _, fix := other.checkMasters(ctx)
	if strings.Contains(fix, "rotate") || !strings.Contains(fix, "file:///second") {
		t.Errorf("advice on a node whose only master key was removed: %q", fix)
	}
	h.split(h.svc, 3, 2, false)
	_, err = h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: keyring.EscrowURL}) // nobody's way to start
	h.must(err)
	h.must(other.gate.(*gate.Gate).Close(ctx))
	out, err = h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///second"})
	if err != nil || out.OtherNodes != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

// With the keys shut for an outage the master keys can be verified, anew from where their URLs say, and it is recorded.
func TestMastersAreVerifiedWhileShut(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	h.ring.Limit(time.Hour)
	h.ring.Shut()
	for _, away := range []bool{true, false} {
		h.config.openErr = nil
		if away {
			h.config.openErr = fault.New(api.CodeUnavailable, "the provider is away")
		}
		list, err := h.svc.VerifyMasters(t.Context(), owner())
		if err != nil || len(list.MasterKeys) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, m := range list.MasterKeys {
			if m.OK == away || away && m.Detail != "the provider is away" {
				t.Errorf("away: %v: %+v", away, m)
			}
		}
		if e := h.lastEvent(); e.Action != "verified" || away && e.Details["failed"] != 2.0 || !e.Success {
			t.Errorf("%s", e.raw)
		}
		if !h.ring.IsShut() {
			t.Error("verifying opened the ring")
		}
	}
	fresh, err := h.config.Open(t.Context(), "file:///first")
	h.must(err)
	h.must(h.ring.Use(t.Context(), []keyring.MasterKey{fresh})) // for the look at the rows that ends every test
}
