package sqlite

import (
	"net/url"
	"path"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// parseURL answers the path that a URL names. Only absolute ones: what a relative path means depends on where the process
// was started, and a server is somewhere else than the command that registered the dataset.
func parseURL(dsn reencrypt.DSN) (string, error) {
	u, err := url.Parse(dsn.Reveal())
	switch {
	case err != nil:
		return "", errURL("it isn't a URL") // err quotes it
	case !strings.EqualFold(u.Scheme, "sqlite"):
		return "", errURL("it must begin with sqlite://")
	case u.User != nil:
		return "", errURL("it names a user, but a file has none")
	case u.Opaque != "" || u.Host != "":
		return "", errURL("the path must be absolute, with three slashes in front")
	case u.RawQuery != "" || u.ForceQuery:
		return "", errURL("it takes no parameters; a ? in the path must be written as %3F")
	case u.Fragment != "":
		return "", errURL("a # in the path must be written as %23")
	case strings.ContainsRune(u.Path, 0):
		return "", errURL("it holds a zero byte")
	case !path.IsAbs(u.Path) || path.Clean(u.Path) == "/" || strings.HasSuffix(u.Path, "/"):
		return "", errURL("it must name a file by its absolute path")
	}
	return path.Clean(u.Path), nil
}

// printable is the URL of a path.
func printable(file string) string {
	u := url.URL{Scheme: "sqlite", Path: file}
	return "sqlite://" + u.EscapedPath()
}

// errURL doesn't quote the URL: a password of another database may have been pasted.
func errURL(why string) error {
	return fault.New(api.CodeInvalid, "reading the database URL: "+why).WithField("db").
		WithNext("write sqlite:///ABSOLUTE/PATH, special characters percent-encoded")
}
