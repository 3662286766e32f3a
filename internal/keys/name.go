package keys

import (
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxName is the longest name in bytes.
const MaxName = 128

// nameForm is plain ASCII on purpose: no upper case, so that two names never differ by case only; no other script, so
// that no look-alike exists; no slash, percent or backslash, so that a name is one segment of a path as it stands.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,127}$`)

// reservedNames mean something to people or to other systems; a principal or a key of that name would mislead.
var reservedNames = map[string]bool{
	"root": true, "sys": true, "system": true, "admin": true, "administrator": true, "superuser": true, "sudo": true,
	"anonymous": true, "nobody": true, "everyone": true, "all": true, "any": true, "none": true, "null": true,
	"self": true, "internal": true, "embedded": true, "keyturn": true,
}

// ValidateName checks a name of a key, a dataset or a principal: 1 to 128 of a-z, 0-9, "_", "." and "-", beginning with
// a letter or digit, without "..", and none of the reserved words. The error doesn't repeat the name.
func ValidateName(name string) error {
	switch {
	case name == "":
		return badName("the name is empty")
	case len(name) > MaxName:
		return badName("the name is longer than 128 bytes")
	case !nameForm.MatchString(name), strings.Contains(name, ".."):
		return badName("the name has a form that isn't accepted")
	case reservedNames[name]:
		return badName("the name is reserved")
	}
	return nil
}

func badName(msg string) error {
	return fault.New(api.CodeInvalid, msg).WithField("name").
		WithNext(`use 1 to 128 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit, without ".."`)
}
