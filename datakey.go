package keyturn

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// The parameters of the message keys under a data key; Envelope's comment has the format.
const (
	dataKeyPurpose = "sdk-envelope"
	dataKeyIDLabel = "keyturn/v1/envelope-key-id\x00"
	dataKeyVersion = 1
)

// fetchTimeout bounds a fetch that outlives the call that began it, because others wait for it too.
const fetchTimeout = time.Minute

// newDataKey takes ownership of raw and destroys it.
func newDataKey(raw []byte) (*envelope.Key, error) {
	if len(raw) != envelope.KeySize {
		clear(raw)
		return nil, fault.Newf(api.CodeInternal, "reading the server's data key: it isn't %d bytes long", envelope.KeySize)
	}
	h := sha256.New()
	h.Write([]byte(dataKeyIDLabel))
	h.Write(raw)
	id := envelope.KeyID(h.Sum(nil)[:16])
	return envelope.NewKey(id, dataKeyVersion, envelope.SuiteStandard, dataKeyPurpose, material.New(raw))
}

// fetchSealing gets a fresh data key from the server.
func (e *Envelope) fetchSealing(ctx context.Context) (*sealing, error) {
	res, err := e.keys.DataKey(ctx, e.cfg.Key, api.DataKeyRequest{Bytes: envelope.KeySize, Context: e.wrapped})
	if err != nil {
		return nil, err
	}
	key, err := newDataKey(res.Plaintext)
	if err != nil {
		return nil, err
	}
	prefix, err := framePrefix(res.Ciphertext)
	if err != nil {
		key.Destroy()
		return nil, err
	}
	return &sealing{key: key, prefix: prefix}, nil
}

// fetchOpening has the server open a wrapped data key.
func (e *Envelope) fetchOpening(ctx context.Context, wrapped string) (*envelope.Key, error) {
	text, err := unwrappable(wrapped)
	if err != nil {
		return nil, err
	}
	res, err := e.keys.Decrypt(ctx, e.cfg.Key, api.DecryptRequest{Ciphertext: text, Context: e.wrapped})
	if err != nil {
		return nil, err
	}
	if len(res.Plaintext) != envelope.KeySize {
		clear(res.Plaintext)
		return nil, errFrame // sealed by the server, but no data key of an envelope
	}
	return newDataKey(res.Plaintext)
}

// sealing is a data key that messages are being sealed under.
type sealing struct {
	key             *envelope.Key
	prefix          []byte // of every frame
	messages, bytes atomic.Uint64
	timer           *time.Timer // destroys it at MaxAge, used or not
}

// spend counts a message of n bytes and reports whether it is within the limits. One that isn't is counted all the
// same, so that nobody comes after it.
func (s *sealing) spend(n uint64, cfg *EnvelopeConfig) bool {
	messages, bytes := s.messages.Add(1), s.bytes.Add(n)
	return messages <= cfg.MaxMessages && (bytes <= cfg.MaxBytes || messages == 1)
}

// sealer holds the data key that seals now. Readers load it without a lock; whoever replaces it holds mu.
type sealer struct {
	cfg   *EnvelopeConfig
	fetch func(context.Context) (*sealing, error)
	now   atomic.Pointer[sealing]

	mu     sync.Mutex
	flight *flight // the fetch under way, nil when none is
	closed bool
}

// flight is one fetch that many wait for; err is written before done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// take is a data key with room for one more message of n bytes, which it has counted. A first message longer than
// MaxBytes has a data key to itself.
func (s *sealer) take(ctx context.Context, n uint64) (*sealing, error) {
	for {
		k := s.now.Load()
		if k != nil && k.spend(n, s.cfg) {
			return k, nil
		}
		f, err := s.renew(ctx, k)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue // somebody was faster
		}
		select {
		case <-f.done:
			if f.err != nil {
				return nil, f.err
			}
		case <-ctx.Done():
			return nil, fault.Wrap("", ctx.Err(), "waiting for a data key")
		}
	}
}

// renew joins or begins the fetch of the data key after old; nil when old isn't the one that seals now.
func (s *sealer) renew(ctx context.Context, old *sealing) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errClosed
	case s.flight != nil:
		return s.flight, nil
	case s.now.Load() != old:
		return nil, nil
	}
	s.drop(old)
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go s.run(context.WithoutCancel(ctx), f)
	return f, nil
}

// run fetches and publishes. It goes on when the caller that began it gives up.
func (s *sealer) run(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	k, err := s.fetch(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight = nil
	switch f.err = err; {
	case err != nil:
	case s.closed:
		k.key.Destroy()
		f.err = errClosed
	default:
		k.timer = time.AfterFunc(s.cfg.MaxAge, func() { s.expire(k) })
		s.now.Store(k)
	}
}

// expire ends k at its age.
func (s *sealer) expire(k *sealing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(k)
}

// drop destroys k; the caller holds mu.
func (s *sealer) drop(k *sealing) {
	if k == nil {
		return
	}
	s.now.CompareAndSwap(k, nil)
	k.timer.Stop()
	k.key.Destroy()
}

func (s *sealer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop(s.now.Load())
}
