package kms

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// behindKEK counts the versions that don't stand under the active key-encryption key.
func (s *Service) behindKEK(ctx context.Context) (behind int, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		behind = 0
		active, err := activeKEK(ctx, tx)
		if err != nil {
			return err
		}
		return eachKey(ctx, tx, func(k keys.Key) error {
			behind += len(notUnder(k, active))
			return nil
		})
	})
	return behind, err
}

// rotateKEKs makes a new generation of every key-encryption key, and then moves the versions of all keys under it, a page
// of keys a transaction. It makes one each time that it is asked, also where an earlier rotation was interrupted: what that one left
// behind is moved with the rest. Killed in between, it leaves versions under several generations, which all stay open, and
// doctor says that there is a rest.
func (s *Service) rotateKEKs(ctx context.Context, c *access.Caller) (api.MasterRotation, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	var made []keys.KEK
	var refused error
	if allowed(c, access.MasterChange, masterResource) {
		s.attachEscrow(ctx, s.ring.Masters())
		if refused = s.allPresent(ctx, s.ring.Masters(), ""); refused == nil {
			made, refused = s.ring.NewKEKs(ctx, keys.KEKPurposes())
		}
	}
	in := gate.Intent{Action: access.MasterChange, Type: audit.KeyRotation, Verb: "keks_rotated", Resource: masterResource}
	if err := s.storeKEKs(ctx, c, in, retired(made), made, "", refused, escrowChange{}); err != nil {
		return api.MasterRotation{}, err
	}
	// The generation is there. A caller who doesn't wait for the rest, whose time is up for instance, mustn't leave it undone:
	// each time that he tries again there would be another generation to move to.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), movingTime)
	defer cancel()
	failpoint.Hit("kms/after-keks")
	if err := s.ring.Open(ctx); err != nil {
		return api.MasterRotation{}, notMoved(err)
	}
	if err := s.moveRecorded(ctx, c, made); err != nil {
		return api.MasterRotation{}, notMoved(err)
	}
	return s.rotation(ctx, len(keys.KEKPurposes())), nil
}

// movingTime is how long a rotation goes on behind its caller's back: nobody is to wait for ever for a master key that is needed meanwhile.
const movingTime = 15 * time.Minute

// notMoved says of an error that the rotation has begun.
func notMoved(err error) error {
	const again = "then once more: keyturn master rotate --keks"
	next := again
	if first := fault.NextOf(err); first != "" {
		next = first + "; " + again
	}
	return fault.Wrap("", err, "the key-encryption keys are replaced, and not every key version is moved under the new ones").WithNext(next)
}

// moveRecorded moves every version under the key-encryption keys that were made, with its event.
func (s *Service) moveRecorded(ctx context.Context, c *access.Caller, made []keys.KEK) error {
	in := gate.Intent{Action: access.MasterChange, Type: audit.KeyRotation, Verb: "versions_rewrapped", Resource: masterResource}
	return s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		m, err := s.moveVersions(ctx, made)
		ev.Details.Changed, ev.Details.Failed = m.moved, uint64(m.stuck.count)
		if err == nil && m.stuck.count > 0 {
			err = fault.New(api.CodeIntegrity, "these stay under older ones, since they aren't as keyturn wrote them: "+m.stuck.String()).WithField("key").
				WithNext("find out who writes to the database, restore these rows from a backup (keyturn doctor lists such rows)")
		}
		return err
	})
}

// rebinding is what a walk over all keys has moved under the active key-encryption key, and what it could not.
type rebinding struct {
	moved uint64
	stuck badRows
}

// pageOfBinding is how many keys are bound anew in one transaction: short enough that others hardly wait.
const pageOfBinding = 100

// passes is how often all keys are walked at most until nothing is left to move. After the first walk nothing is, unless nodes of
// a release that doesn't look at the active key-encryption key at its commits make keys behind its back.
const passes = 8

// moveVersions binds every version under the active key-encryption key. It returns when nothing is left, or nothing that can be moved.
func (s *Service) moveVersions(ctx context.Context, made []keys.KEK) (all rebinding, err error) {
	for range passes {
		m, err := s.movePass(ctx)
		all.moved, all.stuck = all.moved+m.moved, m.stuck
		if err != nil || m.stuck.count > 0 && m.moved == 0 {
			return all, err
		}
		if m.stuck.count > 0 {
			continue
		}
		if left, err := s.unmoved(ctx, made); err != nil || !left {
			return all, err
		}
	}
	return all, fault.New(api.CodeBusy, "versions keep coming back under older key-encryption keys").
		WithNext("end the nodes of earlier releases, or find out who else writes to the database")
}

// unmoved says, of one snapshot, whether any version stands under another key-encryption key than the active one. The pages of a walk
// are several snapshots: whoever writes to the database could take a key away before the walk and put it back after it.
// It fails where what was made isn't there any more: everything stands under what the store calls active then, which is what was there before.
func (s *Service) unmoved(ctx context.Context, made []keys.KEK) (left bool, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		left = false
		records, err := tx.KEKs(ctx)
		if err == nil {
			err = stillThere(made, records)
		}
		if err != nil {
			return err
		}
		active, err := activeKEK(ctx, tx)
		if err != nil {
			return err
		}
		return eachWholeKey(ctx, tx, func(k keys.Key) error {
			left = left || len(notUnder(k, active)) > 0
			return nil
		})
	})
	return left, err
}

// stillThere says whether each of the key-encryption keys that were made is active in the store, or a newer one is.
func stillThere(made, stored []keys.KEK) error {
	for _, m := range made {
		if !m.Active {
			continue // the one before it
		}
		there := slices.ContainsFunc(stored, func(k keys.KEK) bool {
			return k.Purpose == m.Purpose && k.Active && (k.ID == m.ID || k.Version > m.Version)
		})
		if !there {
			return fault.Newf(api.CodeIntegrity, "generation %d of the key-encryption keys, which was made just now, isn't the active one for purpose %s any more", m.Version, m.Purpose).
				WithNext("find out who writes to the database")
		}
	}
	return nil
}

// notUnder are the versions of k that are wrapped under another key-encryption key.
func notUnder(k keys.Key, kek keys.KEKID) (out []keys.Version) {
	for _, v := range k.Versions {
		if len(v.Wrapped) > 0 && v.KEK != kek {
			out = append(out, v)
		}
	}
	return out
}

// movePass walks all keys once, a page a transaction.
func (s *Service) movePass(ctx context.Context) (all rebinding, err error) {
	for after := ""; ; {
		var m rebinding
		var last string
		var full bool
		err := s.st.Change(ctx, func(tx store.Tx) error {
			active, err := activeKEK(ctx, tx)
			if err != nil {
				return err
			}
			page, err := tx.Keys(ctx, after, pageOfBinding)
			if err != nil {
				return err
			}
			m, last, full = rebinding{}, after, len(page) == pageOfBinding
			for _, k := range page {
				if err := s.bindAll(ctx, tx, k, active, &m); err != nil {
					return err
				}
				last = k.Name
			}
			return nil
		})
		if err != nil {
			return all, err
		}
		all.moved += m.moved
		all.stuck.join(m.stuck)
		if after = last; !full {
			return all, nil
		}
		failpoint.Hit("kms/between-pages")
	}
}

// bindAll binds those versions of k that aren't under the active key-encryption key. k is from a list, so it is checked first: a
// row in which somebody wrote another key-encryption key's name would be passed over. What isn't as keyturn wrote it is noted and left
// alone, and doesn't keep others from being moved.
func (s *Service) bindAll(ctx context.Context, tx store.Tx, k keys.Key, active keys.KEKID, m *rebinding) error {
	switch err := (attester{s.ring}).key(ctx, k); fault.CodeOf(err) {
	case "":
	case api.CodeIntegrity:
		m.stuck.add("key " + k.Name)
		return nil
	default:
		return err
	}
	next := k.Clone()
	var bound uint64
	for _, v := range notUnder(k, active) {
		switch err := s.ring.Bind(ctx, &next, v.Number, v); fault.CodeOf(err) {
		case "":
			bound++
		case api.CodeIntegrity:
			m.stuck.add(fmt.Sprintf("key %s version %d", k.Name, v.Number))
		default:
			return err
		}
	}
	if bound == 0 {
		return nil
	}
	m.moved += bound
	return tx.UpdateKey(ctx, next)
}

// activeKEK is the key-encryption key that stands over versions.
func activeKEK(ctx context.Context, tx store.Tx) (keys.KEKID, error) {
	active, err := tx.ActiveKEKs(ctx)
	if err == nil && active[keys.KEKData] == "" {
		err = fault.New(api.CodeUnavailable, "the store has no active key-encryption key for data").
			WithNext("somebody changed the table keks: put it back from a backup")
	}
	return active[keys.KEKData], err
}
