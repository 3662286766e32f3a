package token

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
)

// source is a store of tokens and principals that counts its readers.
type source struct {
	mu         sync.Mutex
	tokens     map[string]access.Token
	principals map[string]access.Principal
	reads      int
	broken     error
	hold       chan struct{} // when set, readers wait for it
}

func newSource() *source {
	return &source{tokens: map[string]access.Token{}, principals: map[string]access.Principal{}}
}

func (s *source) TokenByID(_ context.Context, id string) (access.Token, error) {
	s.mu.Lock()
	t, ok := s.tokens[id]
	s.reads++
	hold, broken := s.hold, s.broken
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if broken != nil {
		return access.Token{}, broken
	}
	if !ok {
		return access.Token{}, fault.New(api.CodeNotFound, "no such token")
	}
	return t, nil
}

func (s *source) PrincipalByID(_ context.Context, id string) (access.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.principals[id]
	if !ok {
		return access.Principal{}, fault.New(api.CodeNotFound, "no such principal")
	}
	return p, nil
}

func (s *source) LocalAdministrator(context.Context) (access.Principal, error) {
	return access.Principal{}, fault.New(api.CodeNotFound, "none")
}

// issue adds a principal with a token.
func (s *source) issue(t testing.TB, name string) string {
	t.Helper()
	text, tok, err := access.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tok.PrincipalID = "id-" + name
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[tok.ID] = tok
	s.principals[tok.PrincipalID] = access.Principal{ID: tok.PrincipalID, Name: name, Role: access.RoleApplication, Scope: []string{"*"}}
	return text
}

func (s *source) changeToken(text string, change func(*access.Token)) {
	id, _, _ := access.ParseToken(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[id]
	change(&t)
	s.tokens[id] = t
}

func request(headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/keys", nil)
	for _, h := range headers {
		r.Header.Add("Authorization", h)
	}
	return r
}

func TestAuthenticate(t *testing.T) {
	s := newSource()
	text := s.issue(t, "app")
	m := New(s, &authn.Generation{}, time.Now)
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
		p, found, err := m.Authenticate(t.Context(), request(scheme+text))
		if err != nil || !found || p.Name != "app" {
			t.Errorf("%q: %v, %v, %v", scheme, p, found, err)
		}
	}
	if p, found, err := m.Authenticate(t.Context(), request()); p != nil || found || err != nil {
		t.Errorf("without a header: %v, %v, %v", p, found, err)
	}
	if s.reads != 1 {
		t.Errorf("%d questions to the store for one token", s.reads)
	}
}

// TestOneRefusal: whatever is wrong with a credential, the answer is the same to the letter, also for a token that was
// never issued and one whose secret is another.
func TestOneRefusal(t *testing.T) {
	s := newSource()
	good, other := s.issue(t, "app"), s.issue(t, "other")
	expired, revoked, disabled, orphan := s.issue(t, "expired"), s.issue(t, "revoked"), s.issue(t, "disabled"), s.issue(t, "orphan")
	s.changeToken(expired, func(t *access.Token) { t.Expires = time.Now() })
	s.changeToken(revoked, func(t *access.Token) { t.Revoked = time.Now() })
	s.changeToken(orphan, func(t *access.Token) { t.PrincipalID = "gone" })
	s.principals["id-disabled"] = access.Principal{ID: "id-disabled", Role: access.RoleOwner, Scope: []string{"*"}, Disabled: true}
	unknown, _, err := access.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// A well-formed token with somebody's id and another secret: only the hash tells.
	swapped := s.issue(t, "swapped")
	s.changeToken(swapped, func(t *access.Token) { t.Hash[0] ^= 1 })

	m := New(s, &authn.Generation{}, time.Now)
	for name, headers := range map[string][]string{
		"unknown": {"Bearer " + unknown}, "another secret": {"Bearer " + swapped}, "expired": {"Bearer " + expired},
		"revoked": {"Bearer " + revoked}, "disabled": {"Bearer " + disabled}, "orphan": {"Bearer " + orphan},
		"empty": {""}, "scheme only": {"Bearer"}, "no token": {"Bearer "}, "basic": {"Basic " + good}, "no scheme": {good},
		"two spaces": {"Bearer  " + good}, "trailing space": {"Bearer " + good + " "}, "two headers": {"Bearer " + good, "Bearer " + good},
		"two tokens": {"Bearer " + good + "," + other}, "truncated": {"Bearer " + good[:len(good)-1]}, "extended": {"Bearer " + good + "0"},
		"huge": {"Bearer " + strings.Repeat("a", 1<<20)},
	} {
		p, found, err := m.Authenticate(t.Context(), request(headers...))
		if p != nil || !found || err != error(authn.ErrUnauthenticated) {
			t.Errorf("%s: %v, %v, %v", name, p, found, err)
		}
	}
	if len(m.entries) != 0 {
		t.Error("a refusal was remembered as an entry")
	}
}

func TestStoreFailureIsNotARefusal(t *testing.T) {
	s := newSource()
	text := s.issue(t, "app")
	s.broken = errors.New("disk on fire: kt_secret")
	_, found, err := New(s, &authn.Generation{}, time.Now).Authenticate(t.Context(), request("Bearer "+text))
	if !found || fault.CodeOf(err) != api.CodeUnavailable || strings.Contains(err.Error(), "kt_") {
		t.Errorf("%v, %v", found, err)
	}
}

// A revocation holds at once where it was made, and elsewhere within TTL; an expiry holds to the moment, also for what
// is remembered.
func TestAdvisory_CVE_2022_41316(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		text := s.issue(t, "app")
		var here, there authn.Generation
		near, far := New(s, &here, time.Now), New(s, &there, time.Now)
		mustSignIn(t, near, text, true)
		mustSignIn(t, far, text, true)

		s.changeToken(text, func(t *access.Token) { t.Revoked = time.Now() })
		here.Drop()
		mustSignIn(t, near, text, false)
		time.Sleep(authn.TTL - time.Nanosecond)
		mustSignIn(t, far, text, true)
		time.Sleep(time.Nanosecond)
		mustSignIn(t, far, text, false)
		mustSignIn(t, New(s, &authn.Generation{}, time.Now), text, false) // the first request after a cold start
	})
}

// What is remembered of a token never outlives the token: whatever the two lifetimes are, and in whatever order they end.
func TestAdvisory_CVE_2020_25816(t *testing.T) {
	for _, life := range []time.Duration{1, time.Millisecond, time.Second, authn.TTL - 1, authn.TTL, authn.TTL + 1, 10 * authn.TTL} {
		for _, asked := range []time.Duration{0, 1, time.Second, authn.TTL} {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				text := s.issue(t, "app")
				s.changeToken(text, func(t *access.Token) { t.Expires = time.Now().Add(life) })
				m := New(s, &authn.Generation{}, time.Now)
				time.Sleep(asked)
				mustSignIn(t, m, text, asked < life)
				time.Sleep(max(0, life-asked))
				mustSignIn(t, m, text, false)
			})
		}
	}
}

func TestRememberedTokenExpiresToTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		text := s.issue(t, "app")
		s.changeToken(text, func(t *access.Token) { t.Expires = time.Now().Add(time.Second) })
		m := New(s, &authn.Generation{}, time.Now)
		time.Sleep(time.Second - time.Nanosecond)
		mustSignIn(t, m, text, true)
		time.Sleep(time.Nanosecond)
		mustSignIn(t, m, text, false)
	})
}

func TestDisabledPrincipalIsOutAtOnce(t *testing.T) {
	s := newSource()
	text := s.issue(t, "app")
	var gen authn.Generation
	m := New(s, &gen, time.Now)
	mustSignIn(t, m, text, true)
	p := s.principals["id-app"]
	p.Disabled = true
	s.principals["id-app"] = p
	gen.Drop()
	mustSignIn(t, m, text, false)
}

func TestClockGoingBackAsksAgain(t *testing.T) {
	s := newSource()
	text := s.issue(t, "app")
	now := time.Now()
	m := New(s, &authn.Generation{}, func() time.Time { return now })
	mustSignIn(t, m, text, true)
	s.changeToken(text, func(t *access.Token) { t.Revoked = now })
	now = now.Add(-time.Hour)
	mustSignIn(t, m, text, false)
}

func mustSignIn(t *testing.T, m *Method, text string, want bool) {
	t.Helper()
	p, err := m.Principal(t.Context(), text)
	if (err == nil) != want || (p != nil) != want {
		t.Fatalf("signed in: %v (%v), want %v", p != nil, err, want)
	}
}

// An answer that was on its way while a right was taken is not remembered beyond, and who asks after the Drop isn't
// handed it.
func TestDropDuringAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		text := s.issue(t, "app")
		hold := make(chan struct{})
		s.hold = hold
		var gen authn.Generation
		m := New(s, &gen, time.Now)
		early := make(chan error, 1)
		go func() { _, err := m.Principal(context.Background(), text); early <- err }()
		synctest.Wait() // the question is at the store, which has read the token already

		s.changeToken(text, func(t *access.Token) { t.Revoked = time.Now() })
		gen.Drop()
		s.mu.Lock()
		s.hold = nil
		s.mu.Unlock()
		mustSignIn(t, m, text, false)
		close(hold)
		if err := <-early; err != nil {
			t.Errorf("the request that began before the revocation: %v", err)
		}
		mustSignIn(t, m, text, false)
	})
}

func TestManyAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		text := s.issue(t, "app")
		hold := make(chan struct{})
		s.hold = hold
		m := New(s, &authn.Generation{}, time.Now)
		impatient, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := m.Principal(impatient, text); first <- err }()
		synctest.Wait()
		answers := make(chan error, 50)
		for range cap(answers) {
			go func() { _, err := m.Principal(context.Background(), text); answers <- err }()
		}
		synctest.Wait()
		cancel()
		if err := <-first; fault.CodeOf(err) != api.CodeCancelled {
			t.Errorf("the one who went away: %v", err)
		}
		close(hold)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Errorf("a waiter suffers from another's cancellation: %v", err)
			}
		}
		if s.reads != 1 {
			t.Errorf("%d questions to the store", s.reads)
		}
	})
}

// Two principals never share an entry, whatever their names and tokens look like.
func TestAdvisory_CVE_2026_33729_signIn(t *testing.T) {
	s := newSource()
	m := New(s, &authn.Generation{}, time.Now)
	texts := map[string]string{}
	for _, name := range []string{"a", "a_a", "a:a", "aa", "a\x00", strings.Repeat("a", 72), strings.Repeat("a", 72) + "b"} {
		texts[name] = s.issue(t, name)
	}
	for range 2 {
		for name, text := range texts {
			if p, err := m.Principal(t.Context(), text); err != nil || p.Name != name {
				t.Errorf("token of %q signs in %v (%v)", name, p, err)
			}
		}
	}
	seen := map[string]bool{}
	for gen := range uint64(1000) {
		for b := range byte(10) {
			key := flightKey([32]byte{31: b}, gen<<8)
			if seen[key] {
				t.Fatal("two questions share a key")
			}
			seen[key] = true
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := newSource()
	m := New(s, &authn.Generation{}, time.Now)
	for i := range maxEntries + 10 {
		m.remember([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, entry{})
	}
	if n := len(m.entries); n > maxEntries {
		t.Errorf("%d entries", n)
	}
	text := s.issue(t, "app")
	mustSignIn(t, m, text, true)
}

func BenchmarkRemembered(b *testing.B) {
	s := newSource()
	text := s.issue(b, "app")
	m := New(s, &authn.Generation{}, time.Now)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Principal(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}

// A token that was seen expired stays so when the clock is set back, by whatever; and one that wasn't goes on to its end.
func TestExpiredStaysExpired(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC)
	for _, back := range []time.Duration{time.Second, 59 * time.Second, 61 * time.Second, 5 * time.Minute, time.Hour, 13 * time.Hour, day, 31 * day, 366 * day, 3653 * day} {
		var passed, off time.Duration
		c := clock.New(func() time.Time { return begin.Add(passed + off) }, func() time.Duration { return passed })
		s := newSource()
		m := New(s, &authn.Generation{}, c.Now)
		ended, lives := s.issue(t, "ended"), s.issue(t, "lives")
		s.changeToken(ended, func(k *access.Token) { k.Expires = begin.Add(time.Minute) })
		s.changeToken(lives, func(k *access.Token) { k.Expires = begin.Add(time.Hour) })
		mustSignIn(t, m, ended, true)
		passed = time.Minute
		mustSignIn(t, m, ended, false)
		off = -back
		for range 10 {
			mustSignIn(t, m, ended, false)
			mustSignIn(t, m, lives, true)
			passed += time.Minute
		}
		passed += time.Hour // it goes on at nine tenths
		mustSignIn(t, m, lives, false)
		off = 0
		mustSignIn(t, m, lives, false)
		mustSignIn(t, m, ended, false)
	}
}
