package kms

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

func TestCreate(t *testing.T) {
	h := newHouse(t, options{})
	k := h.create(api.CreateKeyRequest{Name: "phi", Purpose: "phi", MaxOperations: 5})
	first := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC) // the shipped policy rotates PHI on the first of each month
	if k.Name != "phi" || k.Purpose != "phi" || k.Algorithm != "aes-256-gcm" || k.Suite != 1 || k.Period != "90d" || k.MaxOperations != 5 || len(k.ID) != 32 {
		t.Errorf("%+v", k)
	}
	if len(k.Versions) != 1 || k.Versions[0].State != "active" || k.Versions[0].Activated == nil || k.Versions[0].Expires == nil || !k.Versions[0].Expires.Equal(first) {
		t.Errorf("%+v", k.Versions)
	}
	e := h.lastEvent()
	if e.Type != "key_create" || e.Action != "created" || !e.Success || e.Resource != "key/phi" || e.Version != 1 || e.Details["purpose"] != "phi" {
		t.Errorf("%s", e.raw)
	}
	_, err := h.svc.Create(t.Context(), owner(), api.CreateKeyRequest{Name: "phi"})
	wants(t, err, api.CodeConflict)
	if e := h.lastEvent(); e.Success || e.Details["code"] != "conflict" {
		t.Errorf("a refused creation is recorded as %s", e.raw)
	}
}

func TestCreateRefusals(t *testing.T) {
	h := newHouse(t, options{})
	for field, in := range map[string]api.CreateKeyRequest{
		"name": {Name: "../x"}, "purpose": {Name: "x", Purpose: "P"}, "algorithm": {Name: "x", Algorithm: "x"}, "suite": {Name: "x", Suite: 257},
		"period": {Name: "x", Period: "1 month"}, "maxOperations": {Name: "x", MaxOperations: 1 << 63},
	} {
		_, err := h.svc.Create(t.Context(), owner(), in)
		wants(t, err, api.CodeInvalid, field)
	}
	for _, period := range []string{"1s", "59m", "999ms", "731d", "800d", "40000d", "730d1s"} { // what a policy may not say, a key may not have
		_, created := h.svc.Create(t.Context(), owner(), api.CreateKeyRequest{Name: "x", Period: period})
		_, imported := h.svc.Import(t.Context(), owner(), "x", api.ImportKeyRequest{Material: []byte("0123456789abcdefghijklmnopqrstuv"), Version: 1, Period: period})
		for _, err := range []error{created, imported} {
			wants(t, err, api.CodeInvalid, "period")
			if !strings.Contains(err.Error(), "not between one hour and 730 days") {
				t.Errorf("%s: %v", period, err)
			}
		}
	}
	if all, err := h.svc.List(t.Context(), owner(), "", 0); err != nil || len(all.Keys) != 0 {
		t.Errorf("refused creations left %v (%v)", all.Keys, err)
	}
}

// A key of an earlier release may have a period that is refused now: it protects and opens, and isn't due more often than hourly.
func TestKeysOfAPeriodThatIsRefusedNow(t *testing.T) {
	h := newHouse(t, options{})
	k, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: "old"}, h.time.Now())
	h.must(err)
	k.Cryptoperiod.Period = time.Second
	moves, err := k.Rotate(h.time.Now(), "owner", "created", 0)
	h.must(err)
	intent := gate.Intent{Action: access.KeyCreate, Type: audit.KeyCreate, Verb: "created", Resource: keyResource(k.Name)}
	_, err = h.svc.insert(t.Context(), owner(), intent, k, moves, func(next *keys.Key) error { return h.svc.ring.Fill(t.Context(), next, 1) })
	h.must(err)
	text := h.encrypt("old", "x", nil)
	for range 2 {
		h.clock.Add(time.Hour - time.Second)
		if c, err := h.svc.Status(t.Context(), owner()); err != nil || len(c.Overdue) != 0 {
			t.Errorf("%+v %v", c.Overdue, err)
		}
		h.clock.Add(2 * time.Second)
		if c, err := h.svc.Status(t.Context(), owner()); err != nil || len(c.Overdue) != 1 {
			t.Errorf("%+v %v", c.Overdue, err)
		}
		_, err := h.svc.Rotate(t.Context(), owner(), "old", api.RotateKeyRequest{})
		h.must(err)
		h.opens("old", text, "x", nil, 1)
	}
}

// P4: after any number of rotations everything that was ever sealed opens.
func TestP4OldDataKeepsOpening(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	context := map[string]string{"patient": "17"}
	var texts []string
	for range 5 {
		texts = append(texts, h.encrypt("phi", "078-05-1120", context))
		k, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{Reason: "scheduled_rotation"})
		h.must(err)
		if n := len(k.Versions); k.Versions[n-1].State != "active" || k.Versions[n-2].State != "deactivated" {
			t.Fatalf("%+v", k.Versions)
		}
	}
	for i, text := range texts {
		h.opens("phi", text, "078-05-1120", context, uint32(i+1))
	}
	e := h.events()
	for _, e := range e {
		if e.Action == "rotated" && (e.Type != "key_rotation" || e.Details["source"] != "api" || e.Details["compliance_status"] != "compliant" || e.Details["next_rotation_due"] == nil) {
			t.Errorf("%s", e.raw)
		}
	}
}

func TestRotateOnlyIf(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{IfVersion: 2})
	wants(t, err, api.CodeConflict)
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{IfVersion: 1})
	h.must(err)
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{IfVersion: 1})
	wants(t, err, api.CodeConflict)
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{Emergency: true})
	wants(t, err, api.CodeInvalid, "reason")
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{Emergency: true, Reason: "laptop stolen"})
	h.must(err)
	if e := h.lastEvent(); e.Details["emergency"] != true || e.Reason != "laptop stolen" {
		t.Errorf("%s", e.raw)
	}
	_, err = h.svc.Rotate(t.Context(), owner(), "absent", api.RotateKeyRequest{})
	wants(t, err, api.CodeNotFound)
}

// Two who rotate at once with the same idea make one version, not two.
func TestRotateTwiceAtOnce(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{IfVersion: 1})
			errs <- err
		}()
	}
	won := 0
	for range cap(errs) {
		if err := <-errs; err == nil {
			won++
		} else {
			wants(t, err, api.CodeConflict)
		}
	}
	if won != 1 || len(h.stored("phi").Versions) != 2 {
		t.Errorf("%d rotations, %d versions", won, len(h.stored("phi").Versions))
	}
}

func TestSuspendResumeDisable(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "strict"})
	h.create(api.CreateKeyRequest{Name: "lenient", SuspendedDecrypts: true})
	for _, key := range []string{"strict", "lenient"} {
		text := h.encrypt(key, "x", nil)
		k, err := h.svc.Suspend(t.Context(), owner(), key, api.VersionStateRequest{Reason: "audit"})
		h.must(err)
		if k.Versions[0].State != "suspended" || k.Versions[0].Reason != "audit" {
			t.Errorf("%+v", k.Versions)
		}
		if e := h.lastEvent(); e.Type != "key_state" || e.Action != "suspended" || e.Details["from_state"] != "active" || e.Details["state"] != "suspended" {
			t.Errorf("%s", e.raw)
		}
		_, err = h.tryEncrypt(key, "x", nil)
		wants(t, err, api.CodeWrongState)
		_, _, err = h.tryDecrypt(owner(), key, text, nil)
		if key == "strict" {
			wants(t, err, api.CodeWrongState)
		} else {
			h.must(err)
		}
		_, err = h.svc.Resume(t.Context(), owner(), key, api.VersionStateRequest{})
		h.must(err)
		h.encrypt(key, "x", nil)
		h.opens(key, text, "x", nil, 1)
		_, err = h.svc.Disable(t.Context(), owner(), key, api.VersionStateRequest{})
		h.must(err)
		_, err = h.tryEncrypt(key, "x", nil)
		wants(t, err, api.CodeWrongState)
		h.opens(key, text, "x", nil, 1)
		_, err = h.svc.Resume(t.Context(), owner(), key, api.VersionStateRequest{})
		wants(t, err, api.CodeWrongState)
	}
}

// Disabling takes one thing away at a time and never gives anything back, however often it is repeated.
func TestDisableAVersionThatOnlyOpens(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "orders"})
	h.create(api.CreateKeyRequest{Name: "lenient", SuspendedDecrypts: true})
	old := h.encrypt("orders", "x", nil)
	lenient := h.encrypt("lenient", "x", nil)
	one := api.VersionStateRequest{Version: 1, Reason: "desk closed"}
	for _, key := range []string{"orders", "lenient"} {
		h.must(second(h.svc.Rotate(ctx, owner(), key, api.RotateKeyRequest{})))
		k, err := h.svc.Disable(ctx, owner(), key, one)
		h.must(err)
		if k.Versions[0].State != "suspended" || k.Versions[1].State != "active" {
			t.Fatalf("%+v", k.Versions)
		}
		if e := h.lastEvent(); e.Action != "disabled" || e.Version != 1 || e.Details["from_state"] != "deactivated" || e.Details["state"] != "suspended" {
			t.Errorf("%s", e.raw)
		}
		_, err = h.svc.Disable(ctx, owner(), key, one)
		wants(t, err, api.CodeWrongState)
	}
	_, _, err := h.tryDecrypt(owner(), "orders", old, nil)
	wants(t, err, api.CodeWrongState)
	h.opens("lenient", lenient, "x", nil, 1)
	h.encrypt("orders", "y", nil)

	k, err := h.svc.Resume(ctx, owner(), "orders", api.VersionStateRequest{})
	h.must(err)
	if k.Versions[0].State != "deactivated" {
		t.Errorf("%+v", k.Versions)
	}
	h.opens("orders", old, "x", nil, 1)
	_, err = h.svc.Resume(ctx, owner(), "orders", one)
	wants(t, err, api.CodeWrongState)

	// Also without an active version it doesn't come back as one; one that was active does, unless another is by then.
	h.must(second(h.svc.Disable(ctx, owner(), "orders", one)))
	h.must(second(h.svc.Disable(ctx, owner(), "orders", api.VersionStateRequest{Version: 2})))
	k, err = h.svc.Resume(ctx, owner(), "orders", one)
	h.must(err)
	if k.Versions[0].State != "deactivated" {
		t.Errorf("%+v", k.Versions)
	}
	h.must(second(h.svc.Disable(ctx, owner(), "lenient", api.VersionStateRequest{Version: 2})))
	h.must(second(h.svc.Disable(ctx, owner(), "lenient", api.VersionStateRequest{Version: 2})))
	h.must(second(h.svc.Rotate(ctx, owner(), "lenient", api.RotateKeyRequest{})))
	k, err = h.svc.Resume(ctx, owner(), "lenient", api.VersionStateRequest{Version: 2})
	h.must(err)
	if k.Versions[1].State != "deactivated" || k.Versions[2].State != "active" {
		t.Errorf("%+v", k.Versions)
	}
}

// Whoever may rotate, and not change states, can't end a suspension: not by a rotation, an import or an emergency that was
// opened before it.
func TestNothingNewForASuspendedKey(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.encrypt("phi", "x", nil)
	h.must(second(h.svc.Suspend(ctx, owner(), "phi", api.VersionStateRequest{})))
	before := h.stored("phi")
	emergency := Emergency{Incident: "inc-x", Key: "phi", KeyID: before.ID, Last: 1, Compromised: []uint32{1}, Actor: "ann", Reason: "x"}
	also := func(context.Context, store.Tx) error { return nil }
	for name, try := range map[string]func() error{
		"rotate": func() error { return second(h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{})) },
		"import": func() error {
			return second(h.svc.Import(ctx, owner(), "phi", api.ImportKeyRequest{Material: []byte("0123456789abcdefghijklmnopqrstuv")}))
		},
		"emergency": func() error { return second(h.svc.RotateInEmergency(ctx, emergency, also)) },
	} {
		err := try()
		wants(t, err, api.CodeWrongState)
		if next := fault.NextOf(err); !strings.Contains(next, "keyturn key resume phi") {
			t.Errorf("%s: next is %q", name, next)
		}
	}
	if after := h.stored("phi"); len(after.Versions) != 1 || after.Versions[0].State != keys.Suspended || after.Versions[0].Seq != before.Versions[0].Seq {
		t.Errorf("%+v", after.Versions)
	}
	h.must(second(h.svc.Resume(ctx, owner(), "phi", api.VersionStateRequest{})))
	if changed, err := h.svc.RotateInEmergency(ctx, emergency, also); err != nil || !changed {
		t.Errorf("after the suspension: %v, %v", changed, err)
	}
}

// Whoever marks the active version compromised gets a new one in the same moment.
func TestCompromiseTheActiveVersion(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	k, err := h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{Reason: "leaked"})
	h.must(err)
	if len(k.Versions) != 2 || k.Versions[0].State != "compromised" || k.Versions[1].State != "active" {
		t.Fatalf("%+v", k.Versions)
	}
	e := h.lastEvent()
	if e.Action != "compromised" || e.Version != 1 || e.Details["new_version"] != 2.0 || e.Details["from_state"] != "active" {
		t.Errorf("%s", e.raw)
	}
	if next := h.encrypt("phi", "y", nil); !strings.HasPrefix(next, "kt1.") {
		t.Error("sealing stopped")
	}

	app := as(access.RoleApplication)
	_, _, err = h.tryDecrypt(app, "phi", text, nil)
	wants(t, err, api.CodeDenied)
	if e := h.lastEvent(); e.Success || e.Details["state"] != "compromised" || e.Version != 1 {
		t.Errorf("the refused use of a compromised version is recorded as %s", e.raw)
	}
	app.Principal.Allow = []access.Action{access.KeyDecryptCompromised}
	if got, _, err := h.tryDecrypt(app, "phi", text, nil); err != nil || got != "x" {
		t.Errorf("with the permission: %v", err)
	}
	if e := h.lastEvent(); !e.Success || e.Details["state"] != "compromised" {
		t.Errorf("the use of a compromised version isn't flagged: %s", e.raw)
	}
	if got := h.stored("phi"); len(got.Versions) != 2 || got.Versions[0].Seq != 3 {
		t.Errorf("%+v", got.Versions)
	}
}

func TestCompromiseOthers(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.Suspend(t.Context(), owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	k, err := h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	h.must(err)
	if len(k.Versions) != 1 || k.Versions[0].State != "compromised" {
		t.Errorf("%+v", k.Versions)
	}
	_, err = h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	wants(t, err, api.CodeWrongState)
	_, err = h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 9})
	wants(t, err, api.CodeNotFound, "version")
	_, err = h.svc.Suspend(t.Context(), owner(), "phi", api.VersionStateRequest{WaitDays: 7})
	wants(t, err, api.CodeInvalid, "waitDays")
}

// destroyable is a key whose version 1 may be destroyed, and what it sealed.
func destroyable(h *house) (text string) {
	h.t.Helper()
	h.create(api.CreateKeyRequest{Name: "phi"})
	text = h.encrypt("phi", "x", nil)
	_, err := h.svc.Rotate(h.t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	return text
}

func TestDestroyRefusals(t *testing.T) {
	h := newHouse(t, options{quiet: time.Hour})
	text := destroyable(h)
	ask := func(in api.VersionStateRequest) error {
		_, err := h.svc.Destroy(t.Context(), owner(), "phi", in)
		return err
	}
	wants(t, ask(api.VersionStateRequest{}), api.CodeInvalid, "version")
	wants(t, ask(api.VersionStateRequest{Version: 2}), api.CodeWrongState)
	wants(t, ask(api.VersionStateRequest{Version: 3}), api.CodeNotFound)
	wants(t, ask(api.VersionStateRequest{Version: 1, WaitDays: 6}), api.CodeInvalid, "waitDays")
	if h.deps.asked != 0 {
		t.Error("other databases were asked about a request that can't go through")
	}

	h.deps.found = []Dependent{{"dataset/patients", "ssn", 1234}, {"dataset/notes", "", 5}}
	err := ask(api.VersionStateRequest{Version: 1})
	wants(t, err, api.CodeInUse, "version")
	if msg := err.Error(); !strings.Contains(msg, "1234 values in dataset/patients column ssn") || !strings.Contains(msg, "5 values in dataset/notes") {
		t.Errorf("the refusal doesn't say where and how many: %s", msg)
	}
	if e := h.lastEvent(); e.Success || e.Details["code"] != "in_use" || e.Action != "destroy_scheduled" {
		t.Errorf("%s", e.raw)
	}
	h.deps.found, h.deps.err = nil, fault.New(api.CodeUnavailable, "the database is away")
	wants(t, ask(api.VersionStateRequest{Version: 1}), api.CodeUnavailable)
	h.deps.err = nil

	h.opens("phi", text, "x", nil, 1)
	h.clock.Add(59 * time.Minute)
	wants(t, ask(api.VersionStateRequest{Version: 1}), api.CodeInUse, "version")
	if got := h.stored("phi").Versions[0].State; got != keys.Deactivated {
		t.Fatalf("after refusals the version is %s", got)
	}
	h.clock.Add(time.Minute)
	h.must(ask(api.VersionStateRequest{Version: 1, WaitDays: 7}))
	_, _, err = h.tryDecrypt(owner(), "phi", text, nil)
	wants(t, err, api.CodeWrongState)
}

// Nobody who may not destroy has us ask somebody's database.
func TestDestroyDeniedAsksNobody(t *testing.T) {
	h := newHouse(t, options{})
	destroyable(h)
	_, err := h.svc.Destroy(t.Context(), as(access.RoleApplication), "phi", api.VersionStateRequest{Version: 1})
	wants(t, err, api.CodeDenied)
	if h.deps.asked != 0 {
		t.Error("a denied caller made us ask")
	}
	if e := h.lastEvent(); e.Type != "permission_denied" {
		t.Errorf("%s", e.raw)
	}
}

func TestUndestroy(t *testing.T) {
	h := newHouse(t, options{})
	text := destroyable(h)
	_, err := h.svc.Undestroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	wants(t, err, api.CodeWrongState)
	_, err = h.svc.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	h.must(err)
	k, err := h.svc.Undestroy(t.Context(), owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	if k.Versions[0].State != "deactivated" || k.Versions[0].DestroyAt != nil {
		t.Errorf("%+v", k.Versions[0])
	}
	h.opens("phi", text, "x", nil, 1)
	h.clock.Add(31 * 24 * time.Hour)
	if n, err := h.svc.RunDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d destroyed after undestroy: %v", n, err)
	}
}

// Who runs no server asks for what is due: it is named, and one job does it; a dry run begins none.
func TestDestroyDue(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	destroyable(h)
	var queued []jobs.Job
	h.svc.cfg.Enqueue = func(_ context.Context, _ store.Tx, j jobs.Job) (jobs.Job, error) {
		queued = append(queued, j)
		j.ID, j.State = "job", jobs.Queued
		return j, nil
	}
	_, err := h.svc.Destroy(ctx, owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	if out, err := h.svc.DestroyDue(ctx, owner(), api.DestroyDueRequest{}); err != nil || len(out.Due) != 0 || out.Job != "" || len(queued) != 0 {
		t.Errorf("too early: %+v, %v", out, err)
	}
	h.clock.Add(7 * 24 * time.Hour)
	for _, dry := range []bool{true, false} {
		out, err := h.svc.DestroyDue(ctx, owner(), api.DestroyDueRequest{DryRun: dry})
		h.must(err)
		if len(out.Due) != 1 || out.Due[0].Key != "phi" || out.Due[0].Version != 1 || out.DryRun != dry || (out.Job == "") != dry || (len(queued) == 0) != dry {
			t.Errorf("dry run %v: %+v, queued %+v", dry, out, queued)
		}
		if e := h.lastEvent(); e.Action != "destroy_due_requested" {
			t.Errorf("%s", e.raw)
		}
	}
	if queued[0].Kind != JobDestroyDue || queued[0].UniqueKey != JobDestroyDue {
		t.Errorf("%+v", queued[0])
	}
	if _, err := h.svc.DestroyDue(ctx, &access.Caller{Principal: &access.Principal{ID: "a", Name: "a", Role: "application", Scope: []string{"*"}}}, api.DestroyDueRequest{}); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("an application: %v", err)
	}
}

func TestDestroyWhenDue(t *testing.T) {
	h := newHouse(t, options{})
	text := destroyable(h)
	wrapped := h.stored("phi").Versions[0].Wrapped
	_, err := h.svc.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	scheduled := h.stored("phi").Versions[0].Wrapped
	h.clock.Add(7*24*time.Hour - time.Second)
	if n, err := h.svc.RunDue(t.Context()); n != 0 || err != nil {
		t.Fatalf("%d destroyed a second early: %v", n, err)
	}
	h.clock.Add(time.Second)
	h.deps.found = []Dependent{{"dataset/restored", "ssn", 1}}
	if n, err := h.svc.RunDue(t.Context()); n != 0 || fault.CodeOf(err) != api.CodeInUse {
		t.Fatalf("%d destroyed although something depends on it again: %v", n, err)
	}
	h.deps.found = nil
	if n, err := h.svc.RunDue(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d destroyed: %v", n, err)
	}
	if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed || v.Wrapped != nil || v.Destroyed.IsZero() {
		t.Errorf("%+v", v)
	}
	for _, blob := range [][]byte{wrapped, scheduled} {
		if strings.Contains(string(h.everything()), string(blob)) {
			t.Error("the wrapped material is still on disk")
		}
	}
	if len(h.graves.list) != 1 || h.graves.list[0].Key != "phi" || h.graves.list[0].Version != 1 {
		t.Errorf("tombstones: %+v", h.graves.list)
	}
	if e := h.lastEvent(); e.Action != "destroyed" || e.User != "system" || e.Version != 1 || e.Details["source"] != "scheduler" {
		t.Errorf("%s", e.raw)
	}
	_, _, err = h.tryDecrypt(owner(), "phi", text, nil)
	wants(t, err, api.CodeWrongState)
	if n, err := h.svc.RunDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d destroyed twice: %v", n, err)
	}
}

// A tombstone that couldn't be written is written at the next start.
func TestTombstoneIsMadeUpFor(t *testing.T) {
	h := newHouse(t, options{})
	destroyable(h)
	_, err := h.svc.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	h.clock.Add(7 * 24 * time.Hour)
	h.graves.err = errors.New("disk full")
	if _, err := h.svc.RunDue(t.Context()); err == nil {
		t.Error("nobody hears of a tombstone that wasn't written")
	}
	h.graves.err = nil
	h.must(h.svc.Start(t.Context()))
	if len(h.graves.list) != 1 {
		t.Errorf("tombstones after the next start: %+v", h.graves.list)
	}
	h.must(h.svc.Start(t.Context()))
	if len(h.graves.list) != 1 {
		t.Errorf("a tombstone was written twice: %+v", h.graves.list)
	}
}

// An old store that is put back doesn't bring a destroyed version back.
func TestTombstoneForbidsARisenVersion(t *testing.T) {
	h := newHouse(t, options{})
	text := destroyable(h)
	k := h.stored("phi")
	h.graves.list = []Tombstone{{KeyID: k.ID, Key: "phi", Version: 1}}
	h.must(h.svc.Start(t.Context()))
	_, _, err := h.tryDecrypt(owner(), "phi", text, nil)
	wants(t, err, api.CodeWrongState)
	_, err = h.svc.Export(t.Context(), owner(), "phi", api.ExportKeyRequest{Version: 1, Reason: "r"})
	wants(t, err, api.CodeWrongState)
	d, err := h.svc.Doctor(t.Context(), owner())
	h.must(err)
	if d.OK || check(d, "tombstones").OK {
		t.Errorf("the doctor is content: %+v", check(d, "tombstones"))
	}
}

func check(d api.Doctor, name string) api.DoctorCheck {
	for _, c := range d.Checks {
		if c.Name == name {
			return c
		}
	}
	return api.DoctorCheck{}
}

// Whoever may not use a key can't make material of his own choice its active version.
func TestImportIsNoWayToUseAKey(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	raw := func() []byte { return []byte("0123456789abcdefghijklmnopqrstuv") }
	admin := as(access.RoleKeyAdministrator)
	_, err := h.svc.Import(t.Context(), admin, "phi", api.ImportKeyRequest{Material: raw()})
	wants(t, err, api.CodeDenied)
	if e := h.lastEvent(); e.Type != "permission_denied" || e.Resource != "key/phi" || e.Success {
		t.Errorf("%+v", e)
	}
	if k := h.stored("phi"); len(k.Versions) != 1 {
		t.Errorf("%d versions", len(k.Versions))
	}
	admin.Principal.Allow = []access.Action{access.KeyEncrypt}
	_, err = h.svc.Import(t.Context(), admin, "phi", api.ImportKeyRequest{Material: raw()})
	wants(t, err, api.CodeDenied)
	admin.Principal.Allow = []access.Action{access.KeyEncrypt, access.KeyDecrypt}
	if k, err := h.svc.Import(t.Context(), admin, "phi", api.ImportKeyRequest{Material: raw()}); err != nil || len(k.Versions) != 2 {
		t.Errorf("with both rights: %+v %v", k, err)
	}
}

func TestImport(t *testing.T) {
	h := newHouse(t, options{})
	raw := func() []byte { return []byte("0123456789abcdefghijklmnopqrstuv") }
	k, err := h.svc.Import(t.Context(), as(access.RoleKeyAdministrator), "ext", api.ImportKeyRequest{Material: raw(), Purpose: "pii", Reason: "from the old HSM"})
	h.must(err)
	if k.Purpose != "pii" || len(k.Versions) != 1 || k.Versions[0].State != "active" {
		t.Errorf("%+v", k)
	}
	out, err := h.svc.Export(t.Context(), owner(), "ext", api.ExportKeyRequest{Reason: "check"})
	if err != nil || string(out.Material) != string(raw()) || out.Version != 1 {
		t.Errorf("exported %d bytes of version %d: %v", len(out.Material), out.Version, err)
	}
	if e := h.lastEvent(); e.Type != "key_export" || e.Reason != "check" || strings.Contains(e.raw, "0123456789abcdef") {
		t.Errorf("%s", e.raw)
	}
	text := h.encrypt("ext", "x", nil)
	in := raw()
	in[0] = 'X'
	k, err = h.svc.Import(t.Context(), owner(), "ext", api.ImportKeyRequest{Material: in})
	h.must(err)
	if len(k.Versions) != 2 || k.Versions[1].State != "active" || k.Versions[0].State != "deactivated" {
		t.Errorf("%+v", k.Versions)
	}
	if strings.Trim(string(in), "\x00") != "" {
		t.Error("the request's material isn't wiped")
	}
	h.opens("ext", text, "x", nil, 1)

	_, err = h.svc.Import(t.Context(), owner(), "ext", api.ImportKeyRequest{Material: raw(), Purpose: "data"})
	wants(t, err, api.CodeConflict, "purpose")
	for _, m := range [][]byte{nil, make([]byte, 31), make([]byte, 33), make([]byte, 32)} {
		_, err = h.svc.Import(t.Context(), owner(), "weak", api.ImportKeyRequest{Material: m})
		wants(t, err, api.CodeInvalid, "material")
	}
	_, err = h.svc.Import(t.Context(), as(access.RoleApplication), "other", api.ImportKeyRequest{Material: raw()})
	wants(t, err, api.CodeDenied)
}

// Generations come in in their order, and none of them twice.
func TestImportAsVersion(t *testing.T) {
	h := newHouse(t, options{})
	from := func(generation byte, version uint32) (api.Key, error) {
		m := []byte("0123456789abcdefghijklmnopqrstuv")
		m[0] = generation
		return h.svc.Import(t.Context(), owner(), "ext", api.ImportKeyRequest{Material: m, Version: version, Reason: "moving in"})
	}
	_, err := from('b', 2)
	wants(t, err, api.CodeConflict, "version")
	if e := h.lastEvent(); e.Success || e.Details["code"] != "conflict" {
		t.Errorf("%s", e.raw)
	}
	if _, err := h.svc.Show(t.Context(), owner(), "ext"); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a key was made: %v", err)
	}
	for i, version := range []uint32{1, 2, 3} {
		k, err := from('a'+byte(i), version)
		h.must(err)
		if k.Versions[i].Version != version || k.Versions[i].State != "active" {
			t.Errorf("%+v", k.Versions)
		}
	}
	for _, taken := range []uint32{1, 3, 5} {
		_, err := from('x', taken)
		wants(t, err, api.CodeConflict, "version")
	}
	k, err := h.svc.Show(t.Context(), owner(), "ext")
	if err != nil || len(k.Versions) != 3 {
		t.Errorf("%+v, %v", k, err)
	}
}

// Material that a version has is no next version: marking that one compromised would leave its twin in use. Whoever may not
// use the key isn't told.
func TestImportOfTheSameMaterial(t *testing.T) {
	h := newHouse(t, options{})
	raw := func(generation byte) []byte {
		m := []byte("0123456789abcdefghijklmnopqrstuv")
		m[0] = generation
		return m
	}
	imports := func(c *access.Caller, generation byte) error {
		_, err := h.svc.Import(t.Context(), c, "ext", api.ImportKeyRequest{Material: raw(generation)})
		return err
	}
	h.must(imports(owner(), 'a'))
	h.must(imports(owner(), 'b'))
	for generation, version := range map[byte]string{'a': "version 1", 'b': "version 2"} {
		err := imports(owner(), generation)
		wants(t, err, api.CodeConflict, "material")
		if !strings.Contains(err.Error(), version) || fault.NextOf(err) == "" {
			t.Errorf("%v, want %s", err, version)
		}
		if e := h.lastEvent(); e.Success || e.Type != "key_create" || e.Resource != "key/ext" || e.Details["code"] != "conflict" {
			t.Errorf("%s", e.raw)
		}
	}
	wants(t, imports(as(access.RoleKeyAdministrator), 'a'), api.CodeDenied)
	if k := h.stored("ext"); len(k.Versions) != 2 || k.Versions[1].State != keys.Active {
		t.Errorf("%+v", k.Versions)
	}
	_, err := h.svc.Import(t.Context(), owner(), "other", api.ImportKeyRequest{Material: raw('a')}) // another key may share it
	h.must(err)
}

func TestExportNeedsMore(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.Export(t.Context(), owner(), "phi", api.ExportKeyRequest{})
	wants(t, err, api.CodeInvalid, "reason")
	for _, role := range []string{access.RoleKeyAdministrator, access.RoleApplication, access.RoleAuditor, access.RoleBackup} {
		_, err := h.svc.Export(t.Context(), as(role), "phi", api.ExportKeyRequest{Reason: "r"})
		wants(t, err, api.CodeDenied)
	}
	_, err = h.svc.Export(t.Context(), owner(), "phi", api.ExportKeyRequest{Reason: "r", Version: 7})
	wants(t, err, api.CodeNotFound, "version")
}
