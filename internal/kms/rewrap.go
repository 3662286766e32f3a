package kms

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
)

// Rewrap moves a ciphertext to the active version of its key. The plaintext never leaves this call, and the context stays
// the one that the ciphertext was sealed with: the request's must equal it, and nothing in the request can change it. A
// ciphertext that stands under the active version already is opened, to be sure, and given back as it is.
func (s *Service) Rewrap(ctx context.Context, c *access.Caller, key string, in api.RewrapRequest) (api.RewrapResponse, error) {
	if err := keyNamed(key); err != nil {
		return api.RewrapResponse{}, err
	}
	var out api.RewrapResponse
	intent := gate.Intent{Action: access.KeyRewrap, Type: audit.KeyUse, Verb: "rewrap", Resource: keyResource(key)}
	err := s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		bound, text, err := bind(in.Context)
		if err != nil {
			return err
		}
		ev.Details.Context = text
		o := opening{caller: c, ev: ev, key: key}
		if out, err = s.rewrap(ctx, &o, in.Ciphertext, bound); err != nil {
			return err
		}
		ev.KeyVersion, ev.Details.OldVersion, ev.Details.NewVersion = out.Version, out.FromVersion, out.Version
		return nil
	})
	if err != nil {
		return api.RewrapResponse{}, err
	}
	return out, nil
}

// rewrap is Rewrap without the doorway. Handles that were dropped from memory just now are fetched again, once.
func (s *Service) rewrap(ctx context.Context, o *opening, text string, bound envelope.Context) (api.RewrapResponse, error) {
	b := scratches.Get().(*scratch)
	defer b.free()
	var err error
	if b.blob, err = envelope.AppendDecodedText(b.blob[:0], []byte(text)); err != nil {
		return api.RewrapResponse{}, err
	}
	info, err := envelope.Inspect(b.blob)
	if err != nil {
		return api.RewrapResponse{}, err
	}
	out, err := s.rewrapBlob(ctx, o, b.blob, info, bound)
	if errors.Is(err, envelope.ErrDestroyed) {
		out, err = s.rewrapBlob(ctx, o, b.blob, info, bound)
	}
	if err == nil && out.Ciphertext == "" {
		out.Ciphertext = text
	}
	return out, err
}

// rewrapBlob leaves Ciphertext empty for a blob that is current already.
func (s *Service) rewrapBlob(ctx context.Context, o *opening, blob []byte, info envelope.Info, bound envelope.Context) (api.RewrapResponse, error) {
	from, err := s.processor(ctx, o, info.Header)
	if err != nil {
		return api.RewrapResponse{}, err
	}
	k, err := s.lookup(ctx, o.key)
	if err != nil {
		return api.RewrapResponse{}, err
	}
	out := api.RewrapResponse{Version: info.Version, FromVersion: info.Version}
	if v, ok := k.Active(); ok && v.Number == info.Version {
		return out, s.proves(ctx, from, blob, info, bound)
	}
	// Opened before anything is counted, so that garbage doesn't use the version up.
	if err := s.proves(ctx, from, blob, info, bound); err != nil {
		return api.RewrapResponse{}, err
	}
	to, err := s.protector(ctx, o.key, 1, info.Bytes)
	if err != nil {
		return api.RewrapResponse{}, err
	}
	sealed, err := keyring.Rewrap(nil, from, to.key, blob, bound)
	if err != nil {
		return api.RewrapResponse{}, err
	}
	out.Ciphertext, out.Version = string(envelope.AppendText(nil, sealed)), to.version
	return out, nil
}

// proves opens a ciphertext for nothing but to know that it opens; that is a use of its version, and noted.
func (s *Service) proves(ctx context.Context, key *envelope.Key, blob []byte, info envelope.Info, bound envelope.Context) error {
	b := scratches.Get().(*scratch)
	defer b.free()
	plain, err := key.Open(b.plain[:0], blob, bound)
	if err != nil {
		return err
	}
	b.plain = plain
	return s.usage.opened(ctx, info.KeyID, info.Version, s.clock())
}
