// Package env is the master-key provider for a key in an environment variable: env://NAME, usually
// env://KEYTURN_MASTER_KEY.
//
// The variable holds 32 bytes in base64 (see keyring.ParseKeyText). It is the easiest place and the weakest: every child
// process inherits it, and root reads it in /proc. The driver leaves the variable set, since whoever starts children
// (keyturn run) decides what they get.
package env

import (
	"context"
	"os"
	"regexp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// Driver opens env:// URLs. The zero value reads the process's own environment.
type Driver struct {
	// Lookup replaces os.LookupEnv, for tests.
	Lookup func(name string) (string, bool)
}

// name is what POSIX allows as the name of a variable (IEEE Std 1003.1, section 8.1), lower case included.
var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Scheme is "env".
func (Driver) Scheme() string { return "env" }

// Open reads the variable. Errors: invalid for the URL or the variable's content, not_found when it isn't set or empty.
func (d Driver) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	u, err := keyring.ParseURL(raw, "env")
	if err != nil {
		return nil, err
	}
	if !name.MatchString(u.Host) || u.Path != "" || u.RawQuery != "" || u.ForceQuery {
		return nil, fault.New(api.CodeInvalid, "reading a master key's URL: after env:// stands the name of an environment variable").
			WithField(keyring.FieldURL).WithNext("write env://KEYTURN_MASTER_KEY")
	}
	lookup := d.Lookup
	if lookup == nil {
		lookup = os.LookupEnv
	}
	text, ok := lookup(u.Host)
	if !ok || text == "" {
		return nil, fault.New(api.CodeNotFound, "reading the master key: environment variable "+u.Host+" is not set").
			WithNext("set it to the key that the store was made with; for a new store: export " + u.Host + `="$(keyturn master generate)", and keep the key somewhere safe too`)
	}
	m, err := keyring.ParseKeyText([]byte(text))
	if err != nil {
		return nil, fault.Wrap("", err, "reading the master key in environment variable "+u.Host)
	}
	return keyring.Hold("env://"+u.Host, "env", m)
}
