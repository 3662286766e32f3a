package kms

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// Destroy schedules the destruction of a version, which does nothing any more from that moment. It is refused with
// in_use while a dataset holds values under the version, or while somebody opened something with it within the quiet
// time: an application that still reads old ciphertexts may write one back. RunDue executes it when the waiting time is
// over; undestroy takes it back before.
func (s *Service) Destroy(ctx context.Context, c *access.Caller, name string, in api.VersionStateRequest) (api.Key, error) {
	if err := keyNamed(name); err != nil {
		return api.Key{}, err
	}
	if in.Version == 0 {
		return api.Key{}, fault.New(api.CodeInvalid, "destroying: the version isn't named").WithField("version").
			WithNext("name it, so that no other is destroyed by mistake")
	}
	intent := gate.Intent{Action: access.KeyDestroy, Type: audit.KeyState, Verb: "destroy_scheduled", Resource: keyResource(name), Reason: in.Reason}
	if in.Force {
		return s.force(ctx, c, name, intent, in)
	}
	// Other databases are asked before the transaction, and for nobody who may not destroy.
	if allowed(c, access.KeyDestroy, keyResource(name)) {
		if err := s.lookForDependents(ctx, name, in); err != nil {
			return api.Key{}, s.refuse(ctx, c, intent, func(ev *audit.Event) { ev.KeyVersion = in.Version }, err)
		}
	}
	return s.shown(s.changeKey(ctx, c, intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		before, _ := k.Version(in.Version)
		now := s.clock()
		ev.KeyVersion = before.Number
		move, err := k.Move(in.Version, keys.DestroyScheduled, now, actor(c), in.Reason, in.WaitDays)
		if err == nil {
			err = s.quiet(k.Name, before, now)
		}
		if err != nil {
			return nil, err
		}
		after, _ := k.Version(in.Version)
		ev.Details.FromState, ev.Details.State, ev.Details.DestroyAt = string(before.State), string(after.State), after.DestroyAt
		return []keys.Transition{move}, nil
	}))
}

// lookForDependents asks everybody who may depend on the version, if the request would go through otherwise.
func (s *Service) lookForDependents(ctx context.Context, name string, in api.VersionStateRequest) error {
	k, err := s.stored(ctx, name)
	if err != nil {
		return err
	}
	k = k.Clone()
	if _, err := k.Move(in.Version, keys.DestroyScheduled, s.clock(), "", "", in.WaitDays); err != nil {
		return nil // the transaction will say so
	}
	// What stands under it first: that is the reason which doesn't pass by itself.
	if err := s.unused(ctx, k, in.Version); err != nil {
		return err
	}
	return s.outOfGrace(ctx, k, in.Version)
}

// force is one of two people's wish to destroy a version although something depends on it: the data that stands under it
// is lost then, on purpose. The first wish is noted; the second, of another person, schedules the destruction, which waits
// like any other and can be taken back.
func (s *Service) force(ctx context.Context, c *access.Caller, name string, intent gate.Intent, in api.VersionStateRequest) (api.Key, error) {
	if in.Reason == "" {
		return api.Key{}, fault.New(api.CodeInvalid, "forcing a destruction: a reason is needed").WithField("reason").WithNext("say why, for the audit log: --reason WHY")
	}
	// Both rights are needed: this one is decided, and recorded if it is lacking, by the doorway like any other.
	if !allowed(c, access.KeyForceDestroy, intent.Resource) {
		denied := intent
		denied.Action = access.KeyForceDestroy
		return api.Key{}, s.refuse(ctx, c, denied, func(ev *audit.Event) { ev.KeyVersion = in.Version }, fault.New(api.CodeDenied, "the rights of the caller changed meanwhile"))
	}
	people, err := s.people(ctx, c, name, intent, in)
	if err != nil {
		return api.Key{}, err
	}
	return s.shown(s.changeKey(ctx, c, intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		before, _ := k.Version(in.Version)
		ev.KeyVersion = before.Number
		move, agreed, err := k.Force(in.Version, c.Principal.ID, s.clock(), actor(c), in.Reason, in.WaitDays)
		if err != nil {
			return nil, err
		}
		if err := people.agree(before, s.clock()); err != nil {
			return nil, err
		}
		if !agreed {
			ev.Action = "destroy_force_asked"
			return nil, nil
		}
		after, _ := k.Version(in.Version)
		ev.Details.FromState, ev.Details.State, ev.Details.DestroyAt, ev.Details.Emergency = string(before.State), string(after.State), after.DestroyAt, true
		ev.Details.Principal = people.first.Principal.Name
		return []keys.Transition{move}, nil
	}))
}

// outOfGrace refuses while the policies say that a version still counts as in use after it was followed by another. What is
// compromised should go as soon as nothing needs it.
func (s *Service) outOfGrace(ctx context.Context, k keys.Key, n uint32) error {
	rules, err := s.Rules(ctx)
	if err != nil {
		return err
	}
	grace := rules.Of(k.Name, k.Purpose).GraceOf(&k)
	since, err := s.followedAt(ctx, k, n)
	if ends := since.Add(grace); err == nil && grace > 0 && !since.IsZero() && s.clock().Before(ends) {
		return fault.Newf(api.CodeInUse, "version %d of key %s still counts as in use: its policy gives it %s of grace after it was followed by another", n, k.Name,
			keys.FormatPeriod(grace)).WithField("version").WithNext("try again after " + ends.Format(time.RFC3339) + ", or look at keyturn policy show " + k.Name)
	}
	return err
}

// followedAt is when a version stopped protecting; zero for one that is compromised or never was active. The next version's
// row says it, which is attested; of a version that was disabled with none after it, the history does.
func (s *Service) followedAt(ctx context.Context, k keys.Key, n uint32) (at time.Time, err error) {
	v, ok := k.Version(n)
	if !ok || v.State == keys.Compromised || v.PriorState == keys.Compromised || v.Activated.IsZero() {
		return at, nil
	}
	for _, later := range k.Versions[n:] {
		if !later.Activated.IsZero() {
			return later.Activated, nil
		}
	}
	err = s.st.View(ctx, func(tx store.Tx) error {
		at = time.Time{}
		history, err := tx.Transitions(ctx, k.ID)
		for _, m := range history {
			if m.Version == n && m.To == keys.Deactivated {
				at = m.At
			}
		}
		return err
	})
	return at, err
}

// unused is nil when nothing depends on the version, and otherwise says what does and how much of it.
func (s *Service) unused(ctx context.Context, k keys.Key, n uint32) error {
	var found []Dependent
	for _, d := range s.cfg.Dependents {
		some, err := d.Dependents(ctx, k.ID, n)
		if err != nil {
			return fault.Wrapf("", err, "looking for what depends on version %d of key %s", n, k.Name).
				WithNext("make every registered dataset reachable, or remove the dataset")
		}
		found = append(found, some...)
	}
	if len(found) == 0 {
		return nil
	}
	return fault.Newf(api.CodeInUse, "version %d of key %s is still in use: %s", n, k.Name, describe(found)).WithField("version").
		WithNext("move the data to the current version: keyturn dataset reencrypt")
}

// describe lists dependents in words: "120 values in dataset/patients column ssn, …".
func describe(found []Dependent) string {
	const most = 5
	parts := make([]string, 0, most+1)
	for i, d := range found {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d places more", len(found)-most))
			break
		}
		part := fmt.Sprintf("%d values in %s", d.Rows, d.Resource)
		if d.Column != "" {
			part += " column " + d.Column
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// quiet refuses while the version was opened a short time ago.
func (s *Service) quiet(name string, v keys.Version, now time.Time) error {
	ends := v.LastOpened.Add(s.cfg.DestroyQuiet)
	if s.cfg.DestroyQuiet <= 0 || v.LastOpened.IsZero() || !now.Before(ends) {
		return nil
	}
	return fault.Newf(api.CodeInUse, "version %d of key %s was opened at %s, within the last %s", v.Number, name,
		v.LastOpened.Format(time.RFC3339), s.cfg.DestroyQuiet).WithField("version").
		WithNext("find out who still reads what it sealed: keyturn audit query; then try again after " + ends.Format(time.RFC3339))
}

// JobDestroyDue is the kind of the job that executes due destructions.
const JobDestroyDue = "destroy-due"

// DueHandler runs jobs of the kind destroy-due. They have no arguments: whoever wakes one has all destroyed that is due.
type DueHandler struct{ Service *Service }

// Kind is "destroy-due".
func (h DueHandler) Kind() string { return JobDestroyDue }

// Run does it all in one chunk. Interrupted, it leaves versions that are destroyed and versions that are not, and none in
// between; the next run takes up the rest.
func (h DueHandler) Run(ctx context.Context, _ *runner.Run) error {
	_, err := h.Service.RunDue(ctx)
	return err
}

// RunDue destroys every version whose waiting time is over and on which nothing depends. It returns how many; one that is
// refused doesn't keep the others, and is the error. The waiting time is over when the clocks of this machine and of the
// database say so, and keyturn has run for as long since: setting a clock forward destroys nothing early. While a clock stands
// before what was seen of it nothing is destroyed at all.
func (s *Service) RunDue(ctx context.Context) (destroyed int, err error) {
	scheduled := 0
	err = s.st.View(ctx, func(tx store.Tx) error {
		_, states, err := tx.CountKeys(ctx)
		scheduled = states[keys.DestroyScheduled]
		return err
	})
	if err != nil || scheduled == 0 {
		return 0, err
	}
	now, err := s.watchClock(ctx)
	if err == nil {
		err = now.backwards()
	}
	if err != nil {
		return 0, err
	}
	due, err := s.due(ctx, now)
	if err != nil {
		return 0, err
	}
	for _, d := range due {
		failed := s.destroyNow(ctx, d)
		switch {
		case failed == nil:
			destroyed++
		case err == nil:
			err = failed
		}
		if ctx.Err() != nil {
			return destroyed, failed
		}
	}
	return destroyed, err
}

// dueVersion is a version whose waiting time is over by the clocks.
type dueVersion struct {
	key     string
	id      envelope.KeyID
	version uint32
	at      time.Time     // when that is by the clock
	seq     uint32        // of the state that says so
	left    time.Duration // for how long keyturn must still run before it is destroyed
}

// due lists the versions that are to be destroyed now.
func (s *Service) due(ctx context.Context, now clocks) (out []dueVersion, err error) {
	var old []dueVersion // scheduled by a release that didn't write down for how long keyturn is to run
	err = s.st.View(ctx, func(tx store.Tx) error {
		late, err := s.waitOver(ctx, tx, earlier(s.time.Wall(), now.shared), now.state.Watched)
		out, old = nil, nil
		for _, d := range late {
			switch {
			case d.left == 0:
				out = append(out, d)
			case d.left == unwatched:
				old = append(old, d)
			}
		}
		return err
	})
	if err != nil || len(old) == 0 {
		return out, err
	}
	return out, s.st.Change(ctx, func(tx store.Tx) error {
		for _, d := range old {
			if err := tx.SetMeta(ctx, metaWait(d.id, d.version), strconv.FormatInt(now.state.Watched+shortestWait.Microseconds(), 10)); err != nil {
				return err
			}
		}
		return nil
	})
}

// waitOver lists the versions whose waiting time is over by the clocks at now.
func (s *Service) waitOver(ctx context.Context, tx store.Tx, now time.Time, watched int64) (out []dueVersion, err error) {
	err = eachKey(ctx, tx, func(k keys.Key) error {
		for _, v := range k.Versions {
			if v.State == keys.DestroyScheduled && !now.Before(v.DestroyAt) {
				out = append(out, dueVersion{key: k.Name, id: k.ID, version: v.Number, at: v.DestroyAt, seq: v.Seq})
			}
		}
		return nil
	})
	for i := range out {
		if err == nil {
			out[i].left, err = waitsFor(ctx, tx, out[i].id, out[i].version, watched)
		}
	}
	return out, err
}

// earlier of two clocks is the one that counts: one that runs ahead destroys nothing early.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// destroyNow ends one version, after looking once more for what depends on it: a table may have been restored from a
// backup meanwhile. The tombstone is written after the commit; if we are killed in between, Start writes it.
func (s *Service) destroyNow(ctx context.Context, d dueVersion) error {
	name, n := d.key, d.version
	k, err := s.stored(ctx, name)
	if err != nil {
		return err
	}
	const reason = "waiting time over"
	intent := gate.Intent{Action: access.KeyDestroy, Type: audit.KeyState, Verb: "destroyed", Resource: keyResource(name), Reason: reason}
	who := func(ev *audit.Event) { ev.KeyVersion, ev.Details.Source = n, "scheduler" }
	if v, _ := k.Version(n); !v.Forced() {
		if err := s.unused(ctx, k, n); err != nil {
			return s.refuse(ctx, system(), intent, who, err)
		}
	}
	k, err = s.changeKey(ctx, system(), intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		who(ev)
		if v, _ := k.Version(n); v.Seq != d.seq {
			return nil, fault.Newf(api.CodeConflict, "version %d of key %s was undestroyed meanwhile", n, name)
		}
		move, err := k.Destroy(n, s.clock(), actor(system()), reason)
		if err != nil {
			return nil, err
		}
		ev.Details.FromState, ev.Details.State = string(move.From), string(move.To)
		return []keys.Transition{move}, nil
	})
	if err != nil {
		return err
	}
	failpoint.Hit("kms/before-tombstone")
	v, _ := k.Version(n)
	return s.entomb(ctx, Tombstone{KeyID: k.ID, Key: k.Name, Version: n, At: v.Destroyed})
}
