package kms

import (
	"context"
	"encoding/base64"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// defaultKeyBytes is the length of a data key or a derived key when none is asked for.
const defaultKeyBytes = 32

// DataKey makes a random key for the caller's own encryption: in clear, this once, and sealed under the active version,
// to be opened again with decrypt.
func (s *Service) DataKey(ctx context.Context, c *access.Caller, key string, in api.DataKeyRequest) (api.DataKeyResponse, error) {
	if err := keyNamed(key); err != nil {
		return api.DataKeyResponse{}, err
	}
	n, err := keyLength(in.Bytes, "bytes")
	if err != nil {
		return api.DataKeyResponse{}, err
	}
	var out api.DataKeyResponse
	intent := gate.Intent{Action: access.KeyDataKey, Type: audit.KeyUse, Verb: "datakey", Resource: keyResource(key)}
	err = s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		bound, text, err := bind(in.Context)
		if err != nil {
			return err
		}
		ev.Details.Context, ev.Details.Length = text, uint64(n)
		clear(out.Plaintext) // of a run whose ground was taken away
		h, err := s.protector(ctx, key, 1, n)
		ev.KeyVersion = h.version
		if err != nil {
			return err
		}
		m, blob, err := keyring.DataKey(h.key, bound, n)
		if err != nil {
			return err
		}
		defer m.Destroy()
		out = api.DataKeyResponse{Ciphertext: string(envelope.AppendText(nil, blob)), Version: h.version}
		out.Plaintext, err = revealed(m)
		return err
	})
	if err != nil {
		clear(out.Plaintext)
		return api.DataKeyResponse{}, err
	}
	return out, nil
}

// Derive gives a key that only this version, label and context give, the same every time. It leaves in clear, so it has
// its own permission and its own kind of event. A version that is not active any more derives what it derived before, as
// long as it may open what it sealed; that counts as an opening.
func (s *Service) Derive(ctx context.Context, c *access.Caller, key string, in api.DeriveRequest) (api.DeriveResponse, error) {
	if err := keyNamed(key); err != nil {
		return api.DeriveResponse{}, err
	}
	n, err := keyLength(in.Length, "length")
	if err != nil {
		return api.DeriveResponse{}, err
	}
	var out api.DeriveResponse
	intent := gate.Intent{Action: access.KeyDerive, Type: audit.KeyDerive, Verb: "derived", Resource: keyResource(key)}
	err = s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		bound, text, err := bind(in.Context)
		if err != nil {
			return err
		}
		if err := refuseSecrets(envelope.Context(in.Label)); err != nil {
			return fault.New(api.CodeInvalid, "the label holds something that looks like a secret").WithField("label")
		}
		ev.Details.Context, ev.Details.Length = text, uint64(n)
		ek, version, err := s.reached(ctx, &opening{caller: c, ev: ev, key: key}, in.Version)
		if err != nil {
			return err
		}
		clear(out.Key) // of a run whose ground was taken away
		if out.Key, err = ek.AppendDerived(nil, in.Label, bound, n); err != nil {
			return err
		}
		ev.Details.Label, out.Version = in.Label, version
		return nil
	})
	if err != nil {
		clear(out.Key)
		return api.DeriveResponse{}, err
	}
	return out, nil
}

// Export hands the raw material of a version out. It has its own permission, and needs a reason.
func (s *Service) Export(ctx context.Context, c *access.Caller, key string, in api.ExportKeyRequest) (api.ExportKeyResponse, error) {
	if err := keyNamed(key); err != nil {
		return api.ExportKeyResponse{}, err
	}
	if in.Reason == "" {
		return api.ExportKeyResponse{}, fault.New(api.CodeInvalid, "exporting a key: a reason is needed").WithField("reason").WithNext("say why, for the audit log: --reason WHY")
	}
	var out api.ExportKeyResponse
	intent := gate.Intent{Action: access.KeyExport, Type: audit.KeyExport, Verb: "exported", Resource: keyResource(key), Reason: in.Reason}
	err := s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		k, v, err := s.usable(ctx, &opening{caller: c, ev: ev, key: key}, in.Version)
		if err != nil {
			return err
		}
		m, err := s.ring.Export(ctx, k, v.Number)
		if err != nil {
			return err
		}
		defer m.Destroy()
		clear(out.Material) // of a run whose ground was taken away
		out.Version = v.Number
		out.Material, err = revealed(m)
		return err
	})
	if err != nil {
		clear(out.Material)
		return api.ExportKeyResponse{}, err
	}
	return out, nil
}

// reached is the handle of version n, or of the active one for 0, if the caller may open with it.
func (s *Service) reached(ctx context.Context, o *opening, n uint32) (*envelope.Key, uint32, error) {
	k, v, err := s.usable(ctx, o, n)
	if err != nil {
		return nil, 0, err
	}
	ek, err := s.ring.Version(ctx, k, v.Number)
	return ek, v.Number, err
}

// usable is version n, or the active one for 0, if the caller may open with it. It notes the use.
func (s *Service) usable(ctx context.Context, o *opening, n uint32) (*keys.Key, keys.Version, error) {
	k, err := s.lookup(ctx, o.key)
	if err != nil {
		return nil, keys.Version{}, err
	}
	if n == 0 {
		v, err := k.Usable(s.clock())
		if err != nil {
			return nil, v, err
		}
		n = v.Number
	}
	v, ok := k.Version(n)
	if !ok {
		return nil, v, noVersion(k, n)
	}
	o.ev.KeyVersion = n
	if v, err = k.MayProcess(n, s.mayOpenCompromised(o, k, v)); err != nil {
		return nil, v, err
	}
	if err := s.buried.refuse(k, n); err != nil {
		return nil, v, err
	}
	return k, v, s.usage.opened(ctx, k.ID, n, s.clock())
}

func keyLength(n int, field string) (int, error) {
	if n == 0 {
		n = defaultKeyBytes
	}
	if n < 16 || n > 64 {
		return 0, fault.New(api.CodeInvalid, "the length of a key is not between 16 and 64 bytes").WithField(field)
	}
	return n, nil
}

// revealed turns material into the bytes of an answer. Package keyring lets it out as text only, so the text is taken
// back and wiped.
func revealed(m *material.Bytes) ([]byte, error) {
	text := keyring.AppendText(nil, m)
	defer clear(text)
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "handing a key over")
	}
	return out[:n], nil
}
