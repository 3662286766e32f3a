// Package token signs principals in by bearer token (RFC 6750 section 2.1).
//
//	m := token.New(source, &generation, time.Now)
//	p, found, err := m.Authenticate(ctx, r) // Authorization: Bearer kt_…
//
// A token is found by the id that it carries and proven by its hash, compared in constant time. What was proven is
// remembered under the SHA-256 of the whole token text, so no two tokens can share an entry and the text itself is kept
// nowhere. See package authn for how long.
package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/fault"
)

// maxEntries bounds the memory of remembered tokens. Only valid tokens are remembered, so nobody fills it by guessing.
const maxEntries = 10_000

// Method implements authn.Method. It is safe for concurrent use.
type Method struct {
	source authn.Source
	gen    *authn.Generation
	clock  func() time.Time
	flight singleflight.Group // one question to the store per token and generation

	mu      sync.RWMutex
	entries map[[32]byte]entry // guarded by mu
}

// entry is a proven token.
type entry struct {
	principal *access.Principal
	expires   time.Time // of the token; zero: never
	gen       uint64
	at        time.Time
}

var _ authn.Method = (*Method)(nil)

// New makes the method.
func New(source authn.Source, gen *authn.Generation, clock func() time.Time) *Method {
	return &Method{source: source, gen: gen, clock: clock, entries: map[[32]byte]entry{}}
}

// Name is "token".
func (m *Method) Name() string { return authn.MethodToken }

// Authenticate looks at the Authorization header. A request with two of them, or with another scheme, is refused rather
// than passed on: somebody meant to present a credential.
func (m *Method) Authenticate(ctx context.Context, r *http.Request) (*access.Principal, bool, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return nil, false, nil
	}
	text, ok := bearer(headers)
	if !ok {
		return nil, true, authn.ErrUnauthenticated
	}
	p, err := m.Principal(ctx, text)
	return p, true, err
}

// bearer takes the token out of the header. The scheme's name has no case (RFC 9110 section 11.1).
func bearer(headers []string) (string, bool) {
	const scheme = "bearer "
	h := headers[0]
	if len(headers) != 1 || len(h) < len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
		return "", false
	}
	return h[len(scheme):], true
}

// Principal is who holds this token.
func (m *Method) Principal(ctx context.Context, text string) (*access.Principal, error) {
	if len(text) > access.MaxToken {
		return nil, authn.ErrUnauthenticated
	}
	hash := sha256.Sum256([]byte(text))
	gen, now := m.gen.Now(), m.clock()
	if p := m.remembered(hash, gen, now); p != nil {
		return p, nil
	}
	id, parsed, err := access.ParseToken(text)
	if err != nil || subtle.ConstantTimeCompare(parsed[:], hash[:]) != 1 {
		return nil, authn.ErrUnauthenticated
	}
	return m.ask(ctx, id, hash, gen, now)
}

func (m *Method) remembered(hash [32]byte, gen uint64, now time.Time) *access.Principal {
	m.mu.RLock()
	e, ok := m.entries[hash]
	m.mu.RUnlock()
	if !ok || e.gen != gen || !authn.Fresh(e.at, now) || !e.expires.IsZero() && !now.Before(e.expires) {
		return nil
	}
	return e.principal
}

// flightKey joins those who ask the same. The generation is part of it: who comes after a Drop must not be handed an
// answer that was read before it.
func flightKey(hash [32]byte, gen uint64) string {
	key := make([]byte, 0, len(hash)+8)
	key = append(key, hash[:]...)
	for range 8 {
		key, gen = append(key, byte(gen)), gen>>8
	}
	return string(key)
}

func (m *Method) ask(ctx context.Context, id string, hash [32]byte, gen uint64, now time.Time) (*access.Principal, error) {
	answer := m.flight.DoChan(flightKey(hash, gen), func() (any, error) {
		// The answer serves everyone who waits, so it doesn't end with the one who asked first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), authn.TTL)
		defer cancel()
		return m.prove(ctx, id, hash, gen, now)
	})
	select {
	case <-ctx.Done():
		return nil, fault.Wrap("", ctx.Err(), "checking a credential")
	case r := <-answer:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*access.Principal), nil
	}
}

// prove asks the store. A token that isn't there is compared with nothing at the same cost as one that is.
func (m *Method) prove(ctx context.Context, id string, hash [32]byte, gen uint64, now time.Time) (*access.Principal, error) {
	t, err := m.source.TokenByID(ctx, id)
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		return nil, authn.Refusal(err)
	}
	if subtle.ConstantTimeCompare(t.Hash[:], hash[:]) != 1 || err != nil || !t.Usable(now) {
		return nil, authn.ErrUnauthenticated
	}
	p, err := m.source.PrincipalByID(ctx, t.PrincipalID)
	if err != nil {
		return nil, authn.Refusal(err)
	}
	if p.Disabled || p.ID != t.PrincipalID {
		return nil, authn.ErrUnauthenticated
	}
	m.remember(hash, entry{principal: &p, expires: t.Expires, gen: gen, at: now})
	return &p, nil
}

func (m *Method) remember(hash [32]byte, e entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) >= maxEntries {
		clear(m.entries)
	}
	m.entries[hash] = e
}
