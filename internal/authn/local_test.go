package authn

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/access"
)

// countingSource has one local administrator and counts who asks for it.
type countingSource struct {
	Source
	admin access.Principal
	reads int
}

func (s *countingSource) LocalAdministrator(context.Context) (access.Principal, error) {
	s.reads++
	return s.admin, nil
}

func TestLocalIsRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &countingSource{admin: access.Principal{Name: "first"}}
		var gen Generation
		l := NewLocal(s, &gen, time.Now)
		ask := func(want int) {
			t.Helper()
			p, err := l.Principal(t.Context())
			if err != nil || p.Name != "first" || s.reads != want {
				t.Fatalf("%v, %v; %d questions to the store, want %d", p, err, s.reads, want)
			}
		}
		ask(1)
		ask(1)
		time.Sleep(TTL)
		ask(2)
		gen.Drop()
		ask(3)
	})
}

func TestFresh(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for age, want := range map[time.Duration]bool{0: true, TTL - 1: true, TTL: false, time.Hour: false, -1: false, -time.Hour: false} {
		if Fresh(at, at.Add(age)) != want {
			t.Errorf("at the age of %v: %v", age, !want)
		}
	}
}
