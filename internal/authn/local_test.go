package authn

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
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

// unprovable is a source whose rows can't be proven any more, and can be read.
type unprovable struct {
	Source
	admin, row access.Principal
	err        error
}

func (s *unprovable) LocalAdministrator(context.Context) (access.Principal, error) {
	return s.admin, s.err
}

func (s *unprovable) UnprovenAdministrator(context.Context) (access.Principal, error) {
	return s.row, nil
}

// While nothing can be proven, the one request that says why is the local administrator's if his row is the one that was
// proven before; no other request is, nor one with a row that was changed, nor one that nobody proved.
func TestDiagnosing(t *testing.T) {
	admin := access.Principal{ID: "1", Name: "first", Role: access.RoleOwner, Scope: []string{"*"}, MAC: "m", Revision: 2}
	disabled, forged := admin, admin
	disabled.Disabled, disabled.Revision = true, 3
	forged.Scope = []string{"key/a"}
	away, gone := fault.New(api.CodeUnavailable, "no master key"), fault.New(api.CodeIntegrity, "forged")
	for name, c := range map[string]struct {
		known, asks bool
		row         access.Principal
		err         error
		want        bool
	}{
		"as proven":       {true, true, admin, away, true},
		"another request": {true, false, admin, away, false},
		"never proven":    {false, true, admin, away, false},
		"disabled since":  {true, true, disabled, away, false},
		"changed":         {true, true, forged, away, false},
		"found forged":    {true, true, admin, gone, false},
	} {
		s := &unprovable{admin: admin, row: c.row}
		var gen Generation
		l := NewLocal(s, &gen, time.Now)
		if c.known {
			if _, err := l.Principal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.admin, s.err = access.Principal{}, c.err
		gen.Drop()
		ctx := t.Context()
		if c.asks {
			ctx = Diagnosing(ctx)
		}
		p, err := l.Principal(ctx)
		if (err == nil) != c.want || (p != nil) != c.want || c.want && p.Name != "first" {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}
