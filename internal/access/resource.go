package access

import (
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The kinds of resources.
const (
	KindKey       = "key"
	KindMaster    = "master"
	KindDataset   = "dataset"
	KindJob       = "job"
	KindAudit     = "audit"
	KindPrincipal = "principal"
	KindSystem    = "system"
	KindBackup    = "backup"
	KindPolicy    = "policy"
	KindIncident  = "incident"
)

// Kinds lists the kinds of resources.
func Kinds() []string { return slices.Clone(kinds) }

var kinds = []string{KindKey, KindMaster, KindDataset, KindJob, KindAudit, KindPrincipal, KindSystem, KindBackup, KindPolicy, KindIncident}

// Resource is what an action is done to. Without a Name it is the whole kind, as in listing: whoever may see any of it
// may list, and must then filter the items one by one.
type Resource struct{ Kind, Name string }

// String is "key/phi", or "key" without a name.
func (r Resource) String() string {
	if r.Name == "" {
		return r.Kind
	}
	return r.Kind + "/" + r.Name
}

// everything is the scope entry that covers all resources.
const everything = "*"

// Every is every resource of a kind, those that come later included: only a scope that names none of them covers it. No
// resource has its name.
func Every(kind string) Resource { return Resource{Kind: kind, Name: everything} }

// ValidateScope checks the entries of a scope: "*", "KIND/*" or "KIND/NAME" with a known kind. No other wildcard exists,
// so an entry can't come to mean more when somebody chooses a clever name. An empty scope is valid: it covers nothing.
func ValidateScope(scope []string) error {
	for _, entry := range scope {
		if entry == everything {
			continue
		}
		kind, name, ok := strings.Cut(entry, "/")
		if !ok || !slices.Contains(kinds, kind) || name != everything && !itemForm.MatchString(name) {
			return fault.New(api.CodeInvalid, "the scope has an entry that isn't a resource").WithField("scope").
				WithNext(`write "*", "key/*" or "key/NAME"; kinds are ` + strings.Join(kinds, ", "))
		}
	}
	return nil
}

// itemForm is the form of names and ids alike. That a name isn't a reserved word is checked where things get their name.
var itemForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,127}$`)

// covers says whether a scope entry covers a resource.
func covers(entry string, r Resource) bool {
	if entry == everything {
		return true
	}
	kind, name, ok := strings.Cut(entry, "/")
	if !ok || kind != r.Kind || name == "" {
		return false
	}
	if r.Name == "" {
		return name == everything || itemForm.MatchString(name)
	}
	return name == everything || name == r.Name
}

// includes says whether everything that the narrower entry covers is covered by the wider one.
func includes(wider, narrower string) bool {
	if wider == everything || wider == narrower {
		return true
	}
	kind, name, ok := strings.Cut(wider, "/")
	return ok && name == everything && strings.HasPrefix(narrower, kind+"/")
}
