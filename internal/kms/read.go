package kms

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Sizes of a page of keys.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Show is one key's metadata, read past all caches.
func (s *Service) Show(ctx context.Context, c *access.Caller, name string) (api.Key, error) {
	if err := keyNamed(name); err != nil {
		return api.Key{}, err
	}
	var k keys.Key
	in := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "read", Resource: keyResource(name)}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, _ *audit.Event) (err error) {
		if _, err = s.Rules(ctx); err != nil {
			return err
		}
		k, err = s.stored(ctx, name)
		return err
	})
	return s.shown(k, err)
}

// List is a page of the keys that the caller may see, in name order, after the name after. limit 0 is DefaultPage, and
// more than MaxPage is cut to it. Each key is decided on by itself. A page that isn't the last one says so in Next, also
// when it is short because others' keys were left out.
func (s *Service) List(ctx context.Context, c *access.Caller, after string, limit int) (api.KeyList, error) {
	if limit < 0 {
		return api.KeyList{}, fault.New(api.CodeInvalid, "listing keys: the limit is negative").WithField("limit")
	}
	if limit == 0 {
		limit = DefaultPage
	}
	limit = min(limit, MaxPage)
	var found []keys.Key
	var rules *Rules
	in := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "listed", Resource: keyResource("")}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) (err error) {
		if rules, err = s.Rules(ctx); err != nil {
			return err
		}
		found, err = s.visible(ctx, c, after, limit+1)
		ev.Details.Items = uint64(min(len(found), limit))
		return err
	})
	if err != nil {
		return api.KeyList{}, err
	}
	out := api.KeyList{Keys: make([]api.Key, 0, len(found))}
	if len(found) > limit {
		found = found[:limit]
		out.Next = found[limit-1].Name
	}
	for _, k := range found {
		out.Keys = append(out.Keys, s.view(k, rules))
	}
	return out, nil
}

// errEnough ends a walk early; it never leaves this file.
var errEnough = errors.New("enough")

// visible lists at most limit keys that the caller may see.
func (s *Service) visible(ctx context.Context, c *access.Caller, after string, limit int) (found []keys.Key, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		found = nil
		err := eachKeyAfter(ctx, tx, after, min(limit, pageOfKeys), func(k keys.Key) error {
			if allowed(c, access.KeyRead, keyResource(k.Name)) {
				found = append(found, k)
			}
			if len(found) == limit {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
	return found, err
}

// Inspect says what a ciphertext says of itself. The key's name is left out when the caller may not see that key, or
// when there is none: both look alike.
func (s *Service) Inspect(ctx context.Context, c *access.Caller, in api.InspectRequest) (api.Inspection, error) {
	var out api.Inspection
	intent := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "inspected", Resource: keyResource("")}
	err := s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		blob, err := envelope.AppendDecodedText(nil, []byte(in.Ciphertext))
		if err != nil {
			return err
		}
		info, err := envelope.Inspect(blob)
		if err != nil {
			return err
		}
		out = api.Inspection{
			Format: int(info.Format), Suite: int(info.Suite), KeyID: info.KeyID.String(), Version: info.Version, Bytes: info.Bytes,
		}
		k, err := s.ring.LookupID(ctx, info.KeyID)
		if fault.CodeOf(err) == api.CodeNotFound || err == nil && !allowed(c, access.KeyRead, keyResource(k.Name)) {
			return nil
		}
		if err != nil {
			return err
		}
		out.Key, ev.Details.Key, ev.KeyVersion = k.Name, k.Name, info.Version
		return nil
	})
	if err != nil {
		return api.Inspection{}, err
	}
	return out, nil
}
