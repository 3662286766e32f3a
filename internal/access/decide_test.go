package access

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func principal(role string, scope ...string) *Principal {
	return &Principal{ID: "p1", Name: "somebody", Role: role, Scope: scope}
}

// TestMatrix compares the decision for every role and action with the table that people review. It is written by hand: a
// change of rights must be seen in a change of that file.
func TestMatrix(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "matrix.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := matrix(); got != string(text) {
		t.Errorf("the rights have changed; if that is wanted, testdata/matrix.txt becomes\n%s", got)
	}
}

func matrix() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s", "action")
	for _, r := range Roles() {
		fmt.Fprintf(&b, " %s", r.Name)
	}
	b.WriteByte('\n')
	for _, a := range Actions() {
		kind, _, _ := strings.Cut(string(a.Action), ".")
		fmt.Fprintf(&b, "%-24s", a.Action)
		for _, r := range Roles() {
			mark := "-"
			if Decide(principal(r.Name, "*"), a.Action, Resource{kind, "thing"}).Allowed {
				mark = "x"
			}
			fmt.Fprintf(&b, " %-*s", len(r.Name), mark)
		}
		b.WriteByte('\n')
	}
	return regexp.MustCompile(` +\n`).ReplaceAllString(b.String(), "\n")
}

// What the names of the roles promise, said once more as sentences.
func TestSeparationOfDuties(t *testing.T) {
	for role, never := range map[string][]Action{
		RoleKeyAdministrator: {KeyForceDestroy, KeyEncrypt, KeyDecrypt, KeyDecryptCompromised, KeyDerive, KeyDataKey, KeyExport, MasterChange, MasterEscrow, DatasetDecrypt, PrincipalRead, PrincipalWrite, AuditRead, AuditCheckpoint},
		RoleApplication:      {KeyCreate, KeyRotate, KeyState, KeyCompromise, KeyDestroy, KeyExport, KeyImport, KeyDerive, MasterRead, MasterEscrow, PrincipalRead, AuditRead},
		RoleBackup:           {KeyRead, KeyDecrypt, KeyExport, MasterEscrow, PrincipalRead, AuditRead},
		RoleAuditor:          {KeyDecrypt, KeyEncrypt, KeyDataKey, KeyDerive, KeyExport, KeyRewrap, DatasetDecrypt, PrincipalWrite, MasterChange, MasterEscrow, JobControl},
	} {
		for _, a := range never {
			if Decide(principal(role, "*"), a, Resource{KindKey, "phi"}).Allowed {
				t.Errorf("%s may %s", role, a)
			}
		}
	}
}

// A role that only reads never reaches what issues or opens something.
func TestAdvisory_CVE_2021_42135(t *testing.T) {
	auditor, _ := RoleByName(RoleAuditor)
	for _, a := range auditor.Actions {
		if !strings.HasSuffix(string(a), ".read") && a != AuditCheckpoint && a != KeyReport { // a report is signed, and holds no more than may be read
			t.Errorf("the auditor may %s", a)
		}
	}
	for _, a := range Actions() {
		reads := strings.HasSuffix(string(a.Action), ".read")
		if reads && !slices.Contains(auditor.Actions, a.Action) {
			t.Errorf("the auditor may not %s", a.Action)
		}
	}
}

func TestDenialIsTheDefault(t *testing.T) {
	key := Resource{KindKey, "phi"}
	disabled := principal(RoleOwner, "*")
	disabled.Disabled = true
	extra := principal("nothing", "*")
	extra.Allow = []Action{KeyRead}
	for name, c := range map[string]struct {
		p *Principal
		a Action
		r Resource
	}{
		"nobody":            {nil, KeyRead, key},
		"zero principal":    {&Principal{}, KeyRead, key},
		"disabled":          {disabled, KeyRead, key},
		"unknown role":      {extra, KeyRead, key},
		"unknown action":    {principal(RoleOwner, "*"), "key.everything", key},
		"empty action":      {principal(RoleOwner, "*"), "", key},
		"action in capital": {principal(RoleOwner, "*"), "KEY.READ", key},
		"wildcard action":   {principal(RoleOwner, "*"), "*", key},
		"unknown kind":      {principal(RoleOwner, "*"), KeyRead, Resource{"keys", "phi"}},
		"empty kind":        {principal(RoleOwner, "*"), KeyRead, Resource{"", "phi"}},
	} {
		if d := Decide(c.p, c.a, c.r); d.Allowed || d.Why == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// An empty list means nobody.
func TestAdvisory_CVE_2024_7594(t *testing.T) {
	for _, scope := range [][]string{nil, {}, {""}, {"/"}, {"key"}, {"key/"}, {"/phi"}, {"k*"}, {"key/p*"}, {"key/**"}, {"*/*"}, {"**"}, {" *"}} {
		for _, r := range Roles() {
			for _, a := range Actions() {
				for _, res := range []Resource{{KindKey, "phi"}, {KindKey, ""}, {KindSystem, ""}} {
					if Decide(principal(r.Name, scope...), a.Action, res).Allowed {
						t.Fatalf("scope %q lets %s %s %s", scope, r.Name, a.Action, res)
					}
				}
			}
		}
	}
	p := principal(RoleAuditor, "*")
	p.Allow = []Action{}
	if Decide(p, KeyDecrypt, Resource{KindKey, "phi"}).Allowed {
		t.Error("an empty list of extra actions allows an action")
	}
}

func TestScope(t *testing.T) {
	for _, c := range []struct {
		scope []string
		r     Resource
		want  bool
	}{
		{[]string{"*"}, Resource{KindKey, "phi"}, true},
		{[]string{"key/*"}, Resource{KindKey, "phi"}, true},
		{[]string{"key/phi"}, Resource{KindKey, "phi"}, true},
		{[]string{"key/phi"}, Resource{KindKey, ""}, true}, // listing, filtered item by item
		{[]string{"dataset/phi"}, Resource{KindKey, ""}, false},
		{[]string{"key/phi"}, Resource{KindKey, "phi2"}, false},
		{[]string{"key/phi"}, Resource{KindKey, "ph"}, false},
		{[]string{"key/phi"}, Resource{KindKey, "Phi"}, false},
		{[]string{"key/phi"}, Resource{KindDataset, "phi"}, false},
		{[]string{"key/a", "key/phi"}, Resource{KindKey, "phi"}, true},
		{[]string{"system/*"}, Resource{KindSystem, ""}, true},
	} {
		if got := Decide(principal(RoleOwner, c.scope...), KeyRead, c.r).Allowed; got != c.want {
			t.Errorf("scope %q on %s: %v", c.scope, c.r, got)
		}
	}
}

func TestExtraActionsStayInScope(t *testing.T) {
	p := principal(RoleApplication, "key/phi")
	p.Allow = []Action{KeyDerive}
	if !Decide(p, KeyDerive, Resource{KindKey, "phi"}).Allowed {
		t.Error("an extra action isn't allowed")
	}
	if Decide(p, KeyDerive, Resource{KindKey, "pii"}).Allowed {
		t.Error("an extra action reaches beyond the scope")
	}
	if got := len(Rights(p)); got != 6 {
		t.Errorf("%d rights: %v", got, Rights(p))
	}
	p.Disabled = true
	if Rights(p) != nil || Rights(nil) != nil {
		t.Error("the disabled and the absent have rights")
	}
}

// The decision equals a second evaluator, written for being obvious, on random principals; listing is no way around.
func TestAdvisory_GHSA_xp3c_3jw3_4vcr(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	entries := []string{"*", "key/*", "key/a", "key/b", "dataset/*", "dataset/a", "bad", "key/", "", "key/a*"}
	roleNames := []string{RoleOwner, RoleKeyAdministrator, RoleApplication, RoleBackup, RoleAuditor, "Owner", "", "none"}
	names := []string{"", "a", "b", "a*", "*", "aa"}
	for range 200_000 {
		p := &Principal{Role: roleNames[rng.IntN(len(roleNames))], Disabled: rng.IntN(10) == 0}
		for range rng.IntN(3) {
			p.Scope = append(p.Scope, entries[rng.IntN(len(entries))])
		}
		if rng.IntN(3) == 0 {
			p.Allow = []Action{actions[rng.IntN(len(actions))].Action, "made.up"}
		}
		a := append(Actions(), ActionInfo{Action: "made.up"})[rng.IntN(len(actions)+1)].Action
		r := Resource{kinds[rng.IntN(3)], names[rng.IntN(len(names))]}
		if got, want := Decide(p, a, r).Allowed, plainDecide(p, a, r); got != want {
			t.Fatalf("%+v may %s %s: %v, the reference says %v", p, a, r, got, want)
		}
	}
}

func plainDecide(p *Principal, a Action, r Resource) bool {
	role, ok := RoleByName(p.Role)
	if !ok || p.Disabled || !a.Known() || !slices.Contains(append(role.Actions, p.Allow...), a) {
		return false
	}
	for _, entry := range p.Scope {
		switch {
		case entry == "*", entry == r.Kind+"/*":
			return true
		case r.Name != "" && entry == r.Kind+"/"+r.Name:
			return true
		case r.Name == "" && (entry == r.Kind+"/a" || entry == r.Kind+"/b"):
			return true
		}
	}
	return false
}

func TestActionTableIsComplete(t *testing.T) {
	if len(actions) > 64 {
		t.Fatal("a set of actions no longer fits into 64 bits")
	}
	seen := map[Action]bool{}
	for _, a := range Actions() {
		if a.Describes == "" || a.DoesNotImply == "" || seen[a.Action] {
			t.Errorf("%s is unexplained or there twice", a.Action)
		}
		seen[a.Action] = true
		if kind, _, _ := strings.Cut(string(a.Action), "."); !slices.Contains(kinds, kind) {
			t.Errorf("%s belongs to no kind of resource", a.Action)
		}
	}
	for _, r := range Roles() {
		if r.Description == "" || len(r.Actions) == 0 {
			t.Errorf("role %s is empty", r.Name)
		}
		for _, a := range r.Actions {
			if !a.Known() {
				t.Errorf("role %s has the unknown action %s", r.Name, a)
			}
		}
	}
}

func TestTablesCantBeChangedFromOutside(t *testing.T) {
	Roles()[4].Actions[0] = KeyDecrypt
	Actions()[0].Action = "x"
	if r, _ := RoleByName(RoleAuditor); r.Actions[0] != KeyRead || Actions()[0].Action != KeyCreate {
		t.Error("a caller changed the table")
	}
}

func TestValidateScope(t *testing.T) {
	if err := ValidateScope([]string{"*", "key/*", "key/phi", "job/0f3a", "system/*"}); err != nil {
		t.Error(err)
	}
	for _, entry := range []string{"", "key", "key/", "/phi", "keys/phi", "key/../x", "key/A", "key/p*", "*/*", "key/*/x", "Key/phi", " key/phi", "key/phi ", "key/рhi", "key/a/b", "key/%2a"} {
		if err := ValidateScope([]string{"key/ok", entry}); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "scope" {
			t.Errorf("%q: %v", entry, err)
		}
	}
}
