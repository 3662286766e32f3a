package keyturn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// EnvelopeConfig says which key an Envelope hangs on and how long one data key may serve. Only Key must be set.
type EnvelopeConfig struct {
	Key string // the key at the server that wraps the data keys

	// Limits of one data key; whichever is reached first ends it. They bound what is lost with one data key, and how
	// long this process can go on after its permission was taken away. The cipher itself would allow far more.
	MaxAge      time.Duration // default 5 minutes; a data key that was fetched for opening is kept as long
	MaxMessages uint64        // messages sealed under one data key; default 1,000,000
	MaxBytes    uint64        // bytes of plaintext sealed under one data key; default 16 GiB

	CacheSize int // data keys kept for opening; the least recently used goes first; default 1024

	// Context is bound into every data key, not into the messages: the tenant, for one. Whoever opens must configure the
	// same. Like every context it is written to the audit log in clear.
	Context map[string]string
}

// The documented defaults of EnvelopeConfig.
const (
	defaultMaxAge      = 5 * time.Minute
	defaultMaxMessages = 1_000_000
	defaultMaxBytes    = 16 << 30
	defaultCacheSize   = 1024
)

// Envelope seals and opens in this process, under data keys that the server hands out wrapped and in clear. A data key
// serves many messages, so most calls cost no round trip; the server's audit log shows the data keys, not the messages.
//
// A sealed message is self-contained text:
//
//	"kte1." W "." B          W, B: base64url without padding (RFC 4648 section 5), strict
//	W   the data key, sealed by the server as a suite 1, 2 or 4 ciphertext; "kt1." W is its usual text form
//	B   the message under the data key: a suite 1 ciphertext (package doc of internal/envelope), bound to its context,
//	    with version 1 and, as its key id, the first 16 bytes of SHA-256("keyturn/v1/envelope-key-id" 00 || data key)
//
// So left(column, 37) in SQL tells under which key version of the server a message stands, as left(column, 36) does for
// the server's own ciphertexts. The key id hangs on the data key and not on W: Rewrap can move W to the current version
// without touching B. Sealing adds 356 characters and a third to a message under a suite 1 key.
//
// An Envelope is safe for concurrent use. Data keys that are over a limit, evicted or left behind by Close are
// destroyed; a call that holds one finishes.
type Envelope struct {
	cfg     EnvelopeConfig
	keys    keyService
	wrapped map[string]string // the context of the data keys
	current sealer
	opened  openers
}

// keyService is what an Envelope needs of a Client.
type keyService interface {
	DataKey(context.Context, string, api.DataKeyRequest) (api.DataKeyResponse, error)
	Decrypt(context.Context, string, api.DecryptRequest) (api.DecryptResponse, error)
	Rewrap(context.Context, string, api.RewrapRequest) (api.RewrapResponse, error)
}

// NewEnvelope makes an Envelope on a client. The first message fetches the first data key: needs key.datakey to seal,
// key.decrypt to open, key.rewrap to rewrap. Close it when done; it doesn't close the client.
func NewEnvelope(c *Client, cfg EnvelopeConfig) (*Envelope, error) {
	return newEnvelope(c, cfg)
}

// reserved is the entry that sets data keys apart from everything else that is sealed under the same key.
const reserved = "keyturn.envelope"

func newEnvelope(keys keyService, cfg EnvelopeConfig) (*Envelope, error) {
	if cfg.Key == "" {
		return nil, fault.New(api.CodeInvalid, "configuring an envelope: it needs the name of a key").WithField("Key")
	}
	if cfg.MaxAge < 0 || cfg.CacheSize < 0 {
		return nil, fault.New(api.CodeInvalid, "configuring an envelope: a limit is negative").WithField("MaxAge")
	}
	cfg.MaxAge = or(cfg.MaxAge, defaultMaxAge)
	cfg.MaxMessages = or(cfg.MaxMessages, defaultMaxMessages)
	cfg.MaxBytes = or(cfg.MaxBytes, defaultMaxBytes)
	cfg.CacheSize = or(cfg.CacheSize, defaultCacheSize)
	wrapped := map[string]string{reserved: "1"}
	for k, v := range cfg.Context {
		if k == reserved {
			return nil, fault.New(api.CodeInvalid, "configuring an envelope: this entry of the context is keyturn's own").WithField("Context")
		}
		wrapped[k] = v
	}
	e := &Envelope{cfg: cfg, keys: keys, wrapped: wrapped}
	e.current.fetch = e.fetchSealing
	e.current.cfg = &e.cfg
	e.opened.fetch = e.fetchOpening
	e.opened.cfg = &e.cfg
	e.opened.entries = map[string]*opener{}
	return e, nil
}

// Seal is the sealed text of plaintext, bound to the context. It calls the server when a new data key is due. Codes:
// those of DataKey, too_large over 256 MiB, invalid for a context over 8 KiB, wrong_state after Close.
func (e *Envelope) Seal(ctx context.Context, plaintext []byte, bound map[string]string) (string, error) {
	out, err := e.AppendSeal(ctx, nil, plaintext, bound)
	return string(out), err
}

// AppendSeal appends what Seal returns to dst.
func (e *Envelope) AppendSeal(ctx context.Context, dst, plaintext []byte, bound map[string]string) ([]byte, error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	canonical, err := s.canonical(bound)
	if err != nil {
		return nil, err
	}
	for {
		k, err := e.current.take(ctx, uint64(len(plaintext)))
		if err != nil {
			return nil, err
		}
		s.blob, err = k.key.Seal(s.blob[:0], plaintext, canonical)
		if errors.Is(err, envelope.ErrDestroyed) {
			continue // its time ran out between take and here: the next one is fresh
		}
		if err != nil {
			return nil, err
		}
		return appendFrame(dst, k.prefix, s.blob), nil
	}
}

// Open is the plaintext of what Seal returned, for the same context. It calls the server when the message's data key
// isn't cached. Codes: integrity for what was changed, belongs elsewhere or to another context; those of Decrypt, so
// wrong_state when the server's key version may not open any more; wrong_state after Close.
func (e *Envelope) Open(ctx context.Context, sealed string, bound map[string]string) ([]byte, error) {
	return e.AppendOpen(ctx, nil, sealed, bound)
}

// AppendOpen appends what Open returns to dst.
func (e *Envelope) AppendOpen(ctx context.Context, dst []byte, sealed string, bound map[string]string) ([]byte, error) {
	wrapped, body, err := cutFrame(sealed)
	if err != nil {
		return nil, err
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	canonical, err := s.canonical(bound)
	if err != nil {
		return nil, err
	}
	if s.blob, err = appendBody(s.blob[:0], body); err != nil {
		return nil, err
	}
	for {
		k, err := e.opened.get(ctx, wrapped)
		if err != nil {
			return nil, err
		}
		out, err := k.Open(dst, s.blob, canonical)
		if errors.Is(err, envelope.ErrDestroyed) {
			continue // evicted between get and here
		}
		return out, err
	}
}

// Rewrap moves a message's data key under the current version of the server's key; the message itself isn't touched and
// not opened. It returns the new text. Codes as Client.Rewrap.
func (e *Envelope) Rewrap(ctx context.Context, sealed string) (string, error) {
	wrapped, body, err := cutFrame(sealed)
	if err != nil {
		return "", err
	}
	if _, err := appendBody(nil, body); err != nil {
		return "", err
	}
	text, err := unwrappable(wrapped)
	if err != nil {
		return "", err
	}
	out, err := e.keys.Rewrap(ctx, e.cfg.Key, api.RewrapRequest{Ciphertext: text, Context: e.wrapped})
	if err != nil {
		return "", err
	}
	prefix, err := framePrefix(out.Ciphertext)
	if err != nil {
		return "", err
	}
	return string(prefix) + body, nil
}

// Close destroys every data key. Calls in flight finish; later ones are refused with wrong_state.
func (e *Envelope) Close() error {
	e.current.close()
	e.opened.close()
	return nil
}

// errClosed is what a closed Envelope answers.
var errClosed = fault.New(api.CodeWrongState, "using an envelope that was closed")

// scratch is what one message needs beside its result; it belongs to one goroutine between Get and release, and holds
// ciphertext and contexts only, no plaintext and no key.
type scratch struct {
	pairs   []envelope.Pair
	context []byte
	blob    []byte
}

// scratches is a table of free scratch buffers.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

// keepBlob is the largest buffer that is kept for the next message, in bytes.
const keepBlob = 1 << 20

func (s *scratch) release() {
	clear(s.pairs)
	if cap(s.blob) > keepBlob {
		s.blob = nil
	}
	scratches.Put(s)
}

func (s *scratch) canonical(bound map[string]string) (envelope.Context, error) {
	if len(bound) == 0 {
		return nil, nil
	}
	s.pairs = s.pairs[:0]
	for k, v := range bound {
		s.pairs = append(s.pairs, envelope.Pair{Key: k, Value: v})
	}
	c, err := envelope.AppendContext(s.context[:0], s.pairs)
	if err != nil {
		return nil, err
	}
	s.context = c
	return c, nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}
