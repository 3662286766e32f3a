package access

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"pgregory.net/rapid"
)

func TestCanGrant(t *testing.T) {
	writer := principal(RoleApplication, "key/phi")
	writer.Allow = []Action{PrincipalWrite}
	disabled := principal(RoleOwner, "*")
	disabled.Disabled = true
	for name, c := range map[string]struct {
		granter *Principal
		role    string
		allow   []Action
		scope   []string
		want    api.Code
	}{
		"owner makes an owner":             {principal(RoleOwner, "*"), RoleOwner, nil, []string{"*"}, ""},
		"owner makes an application":       {principal(RoleOwner, "*"), RoleApplication, []Action{KeyDerive}, []string{"key/phi"}, ""},
		"nobody may be given nothing":      {principal(RoleOwner, "*"), RoleAuditor, nil, nil, ""},
		"auditor makes an owner":           {principal(RoleAuditor, "*"), RoleOwner, nil, []string{"*"}, api.CodeDenied},
		"auditor makes an application":     {principal(RoleAuditor, "*"), RoleApplication, nil, []string{"key/phi"}, api.CodeDenied},
		"application makes its like":       {writer, RoleApplication, nil, []string{"key/phi"}, ""},
		"application widens the scope":     {writer, RoleApplication, nil, []string{"key/*"}, api.CodeDenied},
		"application widens it to all":     {writer, RoleApplication, nil, []string{"*"}, api.CodeDenied},
		"application adds one entry":       {writer, RoleApplication, nil, []string{"key/phi", "key/pii"}, api.CodeDenied},
		"application adds an action":       {writer, RoleApplication, []Action{KeyExport}, []string{"key/phi"}, api.CodeDenied},
		"application passes its extra on":  {writer, RoleApplication, []Action{PrincipalWrite}, []string{"key/phi"}, ""},
		"scope of a kind covers its items": {principal(RoleOwner, "key/*"), RoleApplication, nil, []string{"key/phi"}, ""},
		"scope of a kind is not all":       {principal(RoleOwner, "key/*"), RoleApplication, nil, []string{"*"}, api.CodeDenied},
		"scope of another kind":            {principal(RoleOwner, "key/*"), RoleApplication, nil, []string{"dataset/a"}, api.CodeDenied},
		"a disabled owner":                 {disabled, RoleAuditor, nil, []string{"*"}, api.CodeDenied},
		"nobody":                           {nil, RoleAuditor, nil, []string{"*"}, api.CodeDenied},
		"an empty scope gives nothing":     {principal(RoleOwner), RoleAuditor, nil, []string{"key/phi"}, api.CodeDenied},
		"an unknown role":                  {principal(RoleOwner, "*"), "root", nil, []string{"*"}, api.CodeInvalid},
		"an unknown action":                {principal(RoleOwner, "*"), RoleAuditor, []Action{"key.all"}, []string{"*"}, api.CodeInvalid},
		"a malformed scope":                {principal(RoleOwner, "*"), RoleAuditor, nil, []string{"key/p*"}, api.CodeInvalid},
	} {
		if got := fault.CodeOf(CanGrant(c.granter, c.role, c.allow, c.scope)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Nobody ends with a right that its maker didn't have: whatever CanGrant lets through is a subset.
func TestAdvisory_CVE_2025_5999(t *testing.T) {
	roleNames := []string{RoleOwner, RoleKeyAdministrator, RoleApplication, RoleBackup, RoleAuditor}
	entries := []string{"*", "key/*", "key/a", "key/b", "dataset/*", "dataset/a"}
	draw := func(rt *rapid.T, label string) *Principal {
		p := principal(rapid.SampledFrom(roleNames).Draw(rt, label+" role"), rapid.SliceOfN(rapid.SampledFrom(entries), 0, 3).Draw(rt, label+" scope")...)
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(actions)-1), 0, 4).Draw(rt, label+" allow") {
			p.Allow = append(p.Allow, actions[i].Action)
		}
		return p
	}
	rapid.Check(t, func(rt *rapid.T) {
		granter, made := draw(rt, "granter"), draw(rt, "made")
		if CanGrant(granter, made.Role, made.Allow, made.Scope) != nil {
			return
		}
		for _, a := range Actions() {
			for _, kind := range Kinds() {
				for _, name := range []string{"a", "b", "c"} {
					r := Resource{kind, name}
					if Decide(made, a.Action, r).Allowed && !Decide(granter, a.Action, r).Allowed {
						rt.Fatalf("%+v made %+v, who may %s %s", granter, made, a.Action, r)
					}
				}
			}
		}
	})
}

// Variants of a role's name in case, space and script are unknown, for deciding and for granting.
func TestAdvisory_CVE_2024_9180(t *testing.T) {
	for _, r := range Roles() {
		for _, variant := range variants(r.Name) {
			if Decide(principal(variant, "*"), SystemRead, Resource{Kind: KindSystem}).Allowed {
				t.Errorf("role %q has rights", variant)
			}
			if CanGrant(principal(RoleOwner, "*"), variant, nil, []string{"*"}) == nil {
				t.Errorf("role %q can be given", variant)
			}
			if CanGrant(principal(variant, "*"), RoleAuditor, nil, nil) == nil {
				t.Errorf("role %q can give", variant)
			}
		}
	}
	for _, name := range []string{"root", "admin", "Owner", "superuser", ""} {
		if _, ok := RoleByName(name); ok {
			t.Errorf("there is a role %q", name)
		}
	}
}

func variants(name string) []string {
	out := []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:len(name)-1] + strings.ToUpper(name[len(name)-1:])}
	for _, space := range []string{" ", "\t", "\n", "\r", "\x00", "\u00a0", "\u200b", "\u2060", "\ufeff", "\u00ad", "/", "."} {
		out = append(out, name+space, space+name, name[:1]+space+name[1:])
	}
	for _, pair := range []string{"aа", "oо", "eе", "iі", "pр", "cс", "uս", "oο", "aａ", "wｗ"} {
		r := []rune(pair)
		if strings.ContainsRune(name, r[0]) {
			out = append(out, strings.Replace(name, string(r[0]), string(r[1]), 1))
		}
	}
	return slices.Compact(out)
}
