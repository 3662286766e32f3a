package kms

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/store"
)

// tokenOf reads what the store holds of a token's text.
func (h *house) tokenOf(text string) access.Token {
	h.t.Helper()
	id, hash, err := access.ParseToken(text)
	h.must(err)
	token, err := Directory{h.st}.TokenByID(h.t.Context(), id)
	h.must(err)
	if token.Hash != hash {
		h.t.Error("the store holds another hash")
	}
	return token
}

func TestBootstrap(t *testing.T) {
	h := newHouse(t, options{})
	p, err := h.svc.Bootstrap(t.Context(), "first")
	h.must(err)
	if p.Role != "owner" || len(p.Scope) != 1 || p.Scope[0] != "*" || p.Token == "" {
		t.Errorf("%+v", p)
	}
	local, err := Directory{h.st}.LocalAdministrator(t.Context())
	if err != nil || local.ID != p.ID || local.Name != "first" {
		t.Errorf("%+v, %v", local, err)
	}
	if e := h.lastEvent(); e.User != "system" || e.Type != "config_write" || e.Action != "principal_created" || e.Resource != "principal/first" {
		t.Errorf("%s", e.raw)
	}
	_, err = h.svc.Bootstrap(t.Context(), "second")
	wants(t, err, api.CodeConflict)
	_, err = Directory{h.st}.PrincipalByID(t.Context(), "second")
	wants(t, err, api.CodeNotFound)
	_, err = h.svc.DisablePrincipal(t.Context(), owner(), "first")
	wants(t, err, api.CodeInUse)
}

func TestPrincipalLife(t *testing.T) {
	h := newHouse(t, options{})
	in := api.CreatePrincipalRequest{Name: "billing", Role: "application", Scope: []string{"key/phi"}, Allow: []string{"key.derive"}}
	p, err := h.svc.CreatePrincipal(t.Context(), owner(), in)
	h.must(err)
	if p.Role != "application" || p.Scope[0] != "key/phi" || p.Allow[0] != "key.derive" || len(p.ID) != 32 {
		t.Errorf("%+v", p)
	}
	first := h.tokenOf(p.Token)
	if !first.Usable(h.clock.Now()) || first.PrincipalID != p.ID {
		t.Errorf("%+v", first)
	}
	e := h.lastEvent()
	if e.Details["principal"] != "billing" || e.Details["role"] != "application" || e.Details["token"] != first.ID || strings.Contains(e.raw, p.Token) {
		t.Errorf("%s", e.raw)
	}
	if bytes.Contains(h.everything(), []byte(p.Token)) || bytes.Contains(h.everything(), []byte(p.Token[20:60])) {
		t.Error("the store holds the token")
	}

	drops := h.drops.Load()
	again, err := h.svc.NewToken(t.Context(), owner(), "billing")
	h.must(err)
	if h.drops.Load() == drops {
		t.Error("sign-in wasn't told")
	}
	if h.tokenOf(p.Token).Usable(h.clock.Now()) || !h.tokenOf(again.Token).Usable(h.clock.Now()) {
		t.Error("a new token must end the old one")
	}

	drops = h.drops.Load()
	out, err := h.svc.DisablePrincipal(t.Context(), owner(), "billing")
	if err != nil || !out.Disabled || out.Token != "" || h.drops.Load() == drops {
		t.Errorf("%+v, %v", out, err)
	}
	if h.tokenOf(again.Token).Usable(h.clock.Now()) {
		t.Error("the token of a disabled principal is usable")
	}
	_, err = h.svc.NewToken(t.Context(), owner(), "billing")
	wants(t, err, api.CodeWrongState)
	_, err = h.svc.DisablePrincipal(t.Context(), owner(), "billing")
	h.must(err)
	shown, err := h.svc.Principal(t.Context(), owner(), "billing")
	if err != nil || !shown.Disabled || shown.Token != "" {
		t.Errorf("%+v, %v", shown, err)
	}
	_, err = h.svc.Principal(t.Context(), owner(), "absent")
	wants(t, err, api.CodeNotFound)
}

func TestPrincipalRefusals(t *testing.T) {
	h := newHouse(t, options{})
	for field, in := range map[string]api.CreatePrincipalRequest{
		"name": {Name: "Admin", Role: "auditor"}, "role": {Name: "x", Role: "Owner"}, "scope": {Name: "x", Role: "auditor", Scope: []string{"key/p*"}},
		"allow": {Name: "x", Role: "auditor", Allow: []string{"key.everything"}},
	} {
		_, err := h.svc.CreatePrincipal(t.Context(), owner(), in)
		wants(t, err, api.CodeInvalid, field)
	}
	_, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "x", Role: "auditor"})
	h.must(err)
	p, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "x", Role: "auditor"})
	wants(t, err, api.CodeConflict)
	if p.Token != "" {
		t.Error("a refused creation shows a token")
	}
}

// Nobody gives a right that he doesn't have: not by making a principal, not by a token for one that has more, and he
// can't shut such a one out.
func TestAdvisory_CVE_2025_5999_principals(t *testing.T) {
	h := newHouse(t, options{})
	_, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "boss", Role: "owner", Scope: []string{"*"}})
	h.must(err)
	clerk := asScoped(access.RoleApplication, "key/phi", "principal/*")
	clerk.Principal.Allow = []access.Action{access.PrincipalWrite}
	for what, in := range map[string]api.CreatePrincipalRequest{
		"an owner":         {Name: "p1", Role: "owner", Scope: []string{"*"}},
		"a wider scope":    {Name: "p2", Role: "application", Scope: []string{"key/*"}},
		"an extra action":  {Name: "p3", Role: "application", Scope: []string{"key/phi"}, Allow: []string{"key.export"}},
		"a role with more": {Name: "p4", Role: "auditor", Scope: []string{"key/phi"}},
	} {
		if _, err := h.svc.CreatePrincipal(t.Context(), clerk, in); err == nil {
			t.Errorf("he made %s", what)
		} else {
			wants(t, err, api.CodeDenied)
		}
	}
	out, err := h.svc.NewToken(t.Context(), clerk, "boss")
	wants(t, err, api.CodeDenied)
	if out.Token != "" {
		t.Error("he is the boss now")
	}
	_, err = h.svc.DisablePrincipal(t.Context(), clerk, "boss")
	wants(t, err, api.CodeDenied)
	_, err = h.svc.CreatePrincipal(t.Context(), clerk, api.CreatePrincipalRequest{Name: "helper", Role: "application", Scope: []string{"key/phi"}})
	h.must(err)
}

// Two principals never share an id, also when one took over the other's name: tokens are bound to the id.
func TestAdvisory_CVE_2021_41802(t *testing.T) {
	h := newHouse(t, options{})
	seen := map[string]bool{}
	for _, name := range []string{"a", "a.", "a-", "a_", "aa"} {
		p, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: name, Role: "auditor"})
		h.must(err)
		if seen[p.ID] {
			t.Errorf("the id of %s is taken", name)
		}
		seen[p.ID] = true
		if got := h.tokenOf(p.Token).PrincipalID; got != p.ID {
			t.Errorf("the token of %s belongs to %s", name, got)
		}
	}
	for _, alias := range []string{"A", " a", "a ", "а", "a\u200b"} {
		_, err := h.svc.Principal(t.Context(), owner(), alias)
		wants(t, err, api.CodeInvalid)
	}
}

// On every path that ends with an error the number of live tokens is unchanged, and a revocation that fails is never
// answered as done.
func TestAdvisory_CVE_2026_9097(t *testing.T) {
	d := &deaf{}
	h := newHouse(t, options{door: func(real Doorway) Doorway { d.Doorway = real; return d }})
	p, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "billing", Role: "auditor"})
	h.must(err)
	d.broken = true
	if _, err := h.svc.NewToken(t.Context(), owner(), "billing"); err == nil {
		t.Error("an issue that couldn't be recorded was answered as done")
	}
	if _, err := h.svc.DisablePrincipal(t.Context(), owner(), "billing"); err == nil {
		t.Error("a revocation that couldn't be recorded was answered as done")
	}
	d.broken = false
	_, err = h.svc.NewToken(t.Context(), as(access.RoleAuditor), "billing")
	wants(t, err, api.CodeDenied)
	h.must(h.st.View(t.Context(), func(tx store.Tx) error {
		tokens, err := tx.TokensOf(t.Context(), p.ID)
		if len(tokens) != 1 || !tokens[0].Usable(h.clock.Now()) {
			t.Errorf("live tokens: %d", len(tokens))
		}
		return err
	}))
}

// Many who ask for a token at once leave one that is alive.
func TestOneLiveToken(t *testing.T) {
	h := newHouse(t, options{})
	p, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "billing", Role: "auditor"})
	h.must(err)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := h.svc.NewToken(t.Context(), owner(), "billing"); err != nil {
				t.Errorf("issuing: %v", err)
			}
		})
	}
	group.Wait()
	h.must(h.st.View(t.Context(), func(tx store.Tx) error {
		tokens, err := tx.TokensOf(t.Context(), p.ID)
		alive := 0
		for _, token := range tokens {
			if token.Usable(h.clock.Now()) {
				alive++
			}
		}
		if alive != 1 || len(tokens) != 9 {
			t.Errorf("%d of %d tokens are alive", alive, len(tokens))
		}
		return err
	}))
}

func TestPrincipalsShowsOnlyWhatOneMaySee(t *testing.T) {
	h := newHouse(t, options{})
	for _, name := range []string{"a", "b"} {
		_, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: name, Role: "auditor", Scope: []string{"*"}})
		h.must(err)
	}
	out, err := h.svc.Principals(t.Context(), asScoped(access.RoleAuditor, "principal/b"))
	if err != nil || len(out.Principals) != 1 || out.Principals[0].Principal != "b" || out.Principals[0].Token != "" {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = h.svc.Principals(t.Context(), as(access.RoleApplication))
	wants(t, err, api.CodeDenied)
}

func TestRolesAndWhoAmI(t *testing.T) {
	h := newHouse(t, options{})
	out, err := h.svc.Roles(t.Context(), as(access.RoleBackup))
	if err != nil || len(out.Roles) != 5 {
		t.Errorf("%+v, %v", out, err)
	}
	r, err := h.svc.Role(t.Context(), as(access.RoleBackup), "auditor")
	if err != nil || r.Role != "auditor" || len(r.Actions) != 11 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = h.svc.Role(t.Context(), owner(), "Auditor")
	wants(t, err, api.CodeNotFound)
	who, err := h.svc.WhoAmI(t.Context(), asScoped(access.RoleApplication, "key/phi"))
	if err != nil || who.Principal != "some-application" || len(who.Actions) != 5 || who.Scope[0] != "key/phi" || who.Method != "token" {
		t.Errorf("%+v, %v", who, err)
	}
	for _, nobody := range []*access.Caller{nil, {}} {
		_, err := h.svc.Roles(t.Context(), nobody)
		wants(t, err, api.CodeUnauthenticated)
		_, err = h.svc.Role(t.Context(), nobody, "auditor")
		wants(t, err, api.CodeUnauthenticated)
		_, err = h.svc.WhoAmI(t.Context(), nobody)
		wants(t, err, api.CodeUnauthenticated)
	}
}

func TestTokenTimesAreOfTheClock(t *testing.T) {
	h := newHouse(t, options{})
	p, err := h.svc.CreatePrincipal(t.Context(), owner(), api.CreatePrincipalRequest{Name: "a", Role: "auditor"})
	h.must(err)
	h.clock.Add(time.Hour)
	_, err = h.svc.NewToken(t.Context(), owner(), "a")
	h.must(err)
	if old := h.tokenOf(p.Token); !old.Revoked.Equal(h.clock.Now()) || !old.Created.Equal(h.clock.Now().Add(-time.Hour)) {
		t.Errorf("%+v", old)
	}
}
