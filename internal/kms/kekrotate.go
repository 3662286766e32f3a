package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// finishMoving moves what an interrupted rotation of the key-encryption keys left behind: its generation is there, and
// another one would only have to be moved to as well. False when nothing was left.
func (s *Service) finishMoving(ctx context.Context, c *access.Caller) (bool, error) {
	if !allowed(c, access.MasterChange, masterResource) {
		return false, nil // the gate refuses, and records
	}
	behind, err := s.behindKEK(ctx)
	if err != nil || behind == 0 {
		return false, err
	}
	if err := s.ring.Open(ctx); err != nil { // it may have been another process that made the generation
		return false, err
	}
	return true, s.moveRecorded(ctx, c)
}

// behindKEK counts the versions that don't stand under the active key-encryption key.
func (s *Service) behindKEK(ctx context.Context) (behind int, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		behind = 0
		active, err := activeKEK(ctx, tx)
		if err != nil {
			return err
		}
		return eachKey(ctx, tx, func(k keys.Key) error {
			for _, v := range k.Versions {
				if len(v.Wrapped) > 0 && v.KEK != active {
					behind++
				}
			}
			return nil
		})
	})
	return behind, err
}

// moveRecorded moves every version under the active key-encryption key, with its event.
func (s *Service) moveRecorded(ctx context.Context, c *access.Caller) error {
	in := gate.Intent{Action: access.MasterChange, Type: audit.KeyRotation, Verb: "versions_rewrapped", Resource: masterResource}
	return s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		moved, err := s.moveVersions(ctx)
		ev.Details.Changed = moved
		return err
	})
}

// rotateKEKs makes a new generation of every key-encryption key, and then moves the versions of all keys under it, a page
// of keys a transaction. Killed in between, it leaves versions under both generations, which both stay open; the next
// call moves the rest, and doctor says that there is a rest.
func (s *Service) rotateKEKs(ctx context.Context, c *access.Caller) (api.MasterRotation, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	if moved, err := s.finishMoving(ctx, c); err != nil || moved {
		return s.rotation(ctx, len(keys.KEKPurposes())), err
	}
	var made []keys.KEK
	var refused error
	if allowed(c, access.MasterChange, masterResource) {
		s.attachEscrow(ctx, s.ring.Masters())
		if refused = s.allPresent(ctx, s.ring.Masters()); refused == nil {
			made, refused = s.ring.NewKEKs(ctx, keys.KEKPurposes())
		}
	}
	in := gate.Intent{Action: access.MasterChange, Type: audit.KeyRotation, Verb: "keks_rotated", Resource: masterResource}
	if err := s.storeKEKs(ctx, c, in, retired(made), made, "", refused, escrowChange{}); err != nil {
		return api.MasterRotation{}, err
	}
	if err := s.ring.Open(ctx); err != nil {
		return api.MasterRotation{}, err
	}
	failpoint.Hit("kms/after-keks")
	if err := s.moveRecorded(ctx, c); err != nil {
		return api.MasterRotation{}, err
	}
	return s.rotation(ctx, len(keys.KEKPurposes())), nil
}

// pageOfBinding is how many keys are bound anew in one transaction: short enough that others hardly wait.
const pageOfBinding = 100

// moveVersions binds every version under the active key-encryption key and says how many it moved.
func (s *Service) moveVersions(ctx context.Context) (moved uint64, err error) {
	for after := ""; ; {
		var n uint64
		var last string
		var full bool
		err := s.st.Change(ctx, func(tx store.Tx) error {
			page, err := tx.Keys(ctx, after, pageOfBinding)
			if err != nil {
				return err
			}
			n, last, full = 0, after, len(page) == pageOfBinding
			for _, k := range page {
				bound, err := s.bindAll(ctx, tx, k)
				if err != nil {
					return err
				}
				n, last = n+bound, k.Name
			}
			return nil
		})
		if err != nil {
			return moved, err
		}
		if moved, after = moved+n, last; !full {
			return moved, nil
		}
		failpoint.Hit("kms/between-pages")
	}
}

// bindAll binds those versions of k that aren't under the active key-encryption key.
func (s *Service) bindAll(ctx context.Context, tx store.Tx, k keys.Key) (bound uint64, err error) {
	active, err := activeKEK(ctx, tx)
	if err != nil {
		return 0, err
	}
	next := k.Clone()
	for _, v := range k.Versions {
		if len(v.Wrapped) == 0 || v.KEK == active {
			continue
		}
		if err := s.ring.Bind(ctx, &next, v.Number, v); err != nil {
			return 0, err
		}
		bound++
	}
	if bound == 0 {
		return 0, nil
	}
	return bound, tx.UpdateKey(ctx, next)
}

func activeKEK(ctx context.Context, tx store.Tx) (keys.KEKID, error) {
	all, err := tx.KEKs(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range all {
		if k.Active && k.Purpose == keys.KEKData {
			return k.ID, nil
		}
	}
	return "", fault.New(api.CodeUnavailable, "the store has no active key-encryption key for data")
}
