package kms

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
)

// scratch is the memory of one call: binary ciphertexts, and in a rewrap the plaintext on its way.
type scratch struct {
	blob, plain []byte
	bound       []byte
	pairs       []envelope.Pair
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxKeptScratch keeps the pool from holding the memory of rare large messages.
const maxKeptScratch = 64 << 10

// free wipes the plaintext and gives the memory back.
func (b *scratch) free() {
	clear(b.plain[:cap(b.plain)])
	if cap(b.blob) > maxKeptScratch || cap(b.plain) > maxKeptScratch {
		return
	}
	scratches.Put(b)
}

// Encrypt appends the kt1. text of plaintext, sealed under the active version of key and bound to a context, to dst and
// returns it with the version. contextText is the context as one flat JSON object, for the audit record. On an error it
// returns nil.
func (s *Service) Encrypt(ctx context.Context, c *access.Caller, key string, plaintext []byte, bound envelope.Context, contextText string, dst []byte) ([]byte, uint32, error) {
	if err := keyNamed(key); err != nil {
		return nil, 0, err
	}
	out, version := dst, uint32(0)
	in := gate.Intent{Action: access.KeyEncrypt, Type: audit.KeyUse, Verb: "encrypt", Resource: keyResource(key)}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) (err error) {
		if err = refuseSecrets(bound); err != nil {
			return err
		}
		ev.Details.Context = contextText
		out, version, err = s.seal(ctx, key, plaintext, bound, dst)
		ev.KeyVersion = version
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return out, version, nil
}

// Decrypt appends the plaintext of a kt1. text to dst and returns it with the version that it stood under. The context
// must equal the one it was sealed with. On an error it returns nil, and what was opened already is wiped.
func (s *Service) Decrypt(ctx context.Context, c *access.Caller, key string, ciphertext []byte, bound envelope.Context, contextText string, dst []byte) ([]byte, uint32, error) {
	if err := keyNamed(key); err != nil {
		return nil, 0, err
	}
	out, version := dst, uint32(0)
	in := gate.Intent{Action: access.KeyDecrypt, Type: audit.KeyUse, Verb: "decrypt", Resource: keyResource(key)}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) (err error) {
		if err = refuseSecrets(bound); err != nil {
			return err
		}
		ev.Details.Context = contextText
		clear(out[len(dst):]) // of a run whose ground was taken away
		o := opening{caller: c, ev: ev, key: key}
		out, version, err = s.open(ctx, &o, ciphertext, bound, dst)
		return err
	})
	if err != nil {
		clear(out[len(dst):])
		return nil, 0, err
	}
	return out, version, nil
}

// seal is Encrypt without the doorway. A handle that was dropped from memory just now is fetched again, once.
func (s *Service) seal(ctx context.Context, key string, plaintext []byte, bound envelope.Context, dst []byte) ([]byte, uint32, error) {
	b := scratches.Get().(*scratch)
	defer b.free()
	for attempt := 0; ; attempt++ {
		h, err := s.protector(ctx, key, 1, len(plaintext))
		if err != nil {
			return dst, 0, err
		}
		b.blob, err = h.key.Seal(b.blob[:0], plaintext, bound)
		if errors.Is(err, envelope.ErrDestroyed) && attempt == 0 {
			continue
		}
		if err != nil {
			return dst, h.version, err
		}
		return envelope.AppendText(dst, b.blob), h.version, nil
	}
}

// lookup is a key as this node knows it. The operation rests on that: if another node has changed the key by the time at
// which the record is committed, the operation is done again.
func (s *Service) lookup(ctx context.Context, key string) (*keys.Key, error) {
	k, err := s.ring.Lookup(ctx, key)
	if err == nil {
		gate.RestsOn(ctx, k.ID, k.Revision)
	}
	return k, err
}

// handle is a version that may be used now.
type handle struct {
	key     *envelope.Key
	version uint32
}

// protector is the active version of a key, with items operations and so many bytes taken from its counters.
func (s *Service) protector(ctx context.Context, key string, items uint64, bytes int) (handle, error) {
	if bytes > api.MaxPlaintext && items == 1 {
		return handle{}, fault.Newf(api.CodeTooLarge, "sealing a message: it is longer than %d KiB", api.MaxPlaintext>>10).
			WithField("plaintext").WithNext("seal larger data locally under a data key")
	}
	k, err := s.lookup(ctx, key)
	if err != nil {
		return handle{}, err
	}
	v, err := k.Usable(s.clock())
	if err != nil {
		return handle{}, err
	}
	if err := s.buried.refuse(k, v.Number); err != nil {
		return handle{}, err
	}
	ek, err := s.ring.Version(ctx, k, v.Number)
	if err != nil {
		return handle{version: v.Number}, err
	}
	if err := s.usage.take(ctx, k, v.Number, items, uint64(bytes)); err != nil {
		return handle{version: v.Number}, err
	}
	return handle{ek, v.Number}, nil
}

// opening is who opens what, for decisions on each ciphertext and for the event.
type opening struct {
	caller *access.Caller
	ev     *audit.Event // gets the version, and the flag of a compromised one
	key    string
}

// open is Decrypt without the doorway.
func (s *Service) open(ctx context.Context, o *opening, text []byte, bound envelope.Context, dst []byte) ([]byte, uint32, error) {
	b := scratches.Get().(*scratch)
	defer b.free()
	var err error
	if b.blob, err = envelope.AppendDecodedText(b.blob[:0], text); err != nil {
		return dst, 0, err
	}
	return s.openBlob(ctx, o, b.blob, bound, dst)
}

// openBlob opens a binary ciphertext that must be of o.key.
func (s *Service) openBlob(ctx context.Context, o *opening, blob []byte, bound envelope.Context, dst []byte) ([]byte, uint32, error) {
	info, err := envelope.Inspect(blob)
	if err != nil {
		return dst, 0, err
	}
	for attempt := 0; ; attempt++ {
		ek, err := s.processor(ctx, o, info.Header)
		if err != nil {
			return dst, 0, err
		}
		out, err := ek.Open(slices.Grow(dst, info.Bytes), blob, bound)
		if errors.Is(err, envelope.ErrDestroyed) && attempt == 0 {
			continue
		}
		if err != nil {
			return dst, 0, err
		}
		// Only what opened counts as a use, or whoever makes up a header could keep a version from being destroyed.
		if err := s.usage.opened(ctx, info.KeyID, info.Version, s.clock()); err != nil {
			clear(out[len(dst):])
			return dst, 0, err
		}
		return out, info.Version, nil
	}
}

// processor is the version that a header names, if the caller may open with it. Another key's ciphertext and a version
// that never was get the error of a ciphertext that was changed, since that is what they look like.
func (s *Service) processor(ctx context.Context, o *opening, h envelope.Header) (*envelope.Key, error) {
	k, v, err := s.named(ctx, o.key, h)
	if err != nil {
		return nil, err
	}
	o.ev.KeyVersion = v.Number
	if _, err := k.MayProcess(v.Number, s.mayOpenCompromised(o, k, v)); err != nil {
		return nil, err
	}
	if err := s.buried.refuse(k, v.Number); err != nil {
		return nil, err
	}
	return s.ring.Version(ctx, k, v.Number)
}

// named is the version that a header names. One that this node doesn't know may have been made by another a moment ago,
// so the store is asked before the ciphertext is refused.
func (s *Service) named(ctx context.Context, key string, h envelope.Header) (*keys.Key, keys.Version, error) {
	for fresh := false; ; fresh = true {
		k, err := s.lookup(ctx, key)
		if err != nil {
			return nil, keys.Version{}, err
		}
		v, ok := k.Version(h.Version)
		if k.ID != h.KeyID || k.Suite != h.Suite || !ok && fresh {
			return nil, keys.Version{}, envelope.ErrOpen
		}
		if ok {
			return k, v, nil
		}
		s.ring.Drop(k.ID)
	}
}

// mayOpenCompromised decides the extra right that a compromised version needs, and flags its use in the event.
func (s *Service) mayOpenCompromised(o *opening, k *keys.Key, v keys.Version) bool {
	if v.State != keys.Compromised {
		return false
	}
	o.ev.Details.State = string(keys.Compromised)
	return access.Decide(o.caller.Principal, access.KeyDecryptCompromised, keyResource(k.Name)).Allowed
}
