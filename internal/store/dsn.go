package store

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// DSN is the address of a database with its password in it. However it is printed, formatted, logged or marshalled, the
// password doesn't come out; only Reveal gives it away, so that one word can be searched for.
//
// The text hangs on a pointer: package fmt ignores all methods of a value for a verb it doesn't know, and prints what is
// in it, but it doesn't follow a pointer inside.
type DSN struct{ secret *string }

// ParseDSN takes a URL such as postgres://user:password@host/db?sslmode=verify-full. What isn't a URL is refused, the
// keyword form ("host=… password=…") too: it has no place where a password surely ends. The error quotes nothing.
func ParseDSN(s string) (DSN, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return DSN{}, fault.New(api.CodeInvalid, "reading the address of a database: it is not a URL").WithField("url").
			WithNext("write it like postgres://user@host/database; percent-encode special characters of the password")
	}
	return DSN{&s}, nil
}

// Reveal is the address with its password: for the database driver, and for nothing else.
func (d DSN) Reveal() string {
	if d.secret == nil {
		return ""
	}
	return *d.secret
}

// passwordKeys are the parameters that carry a secret in the query of a URL, with or without "ssl" before them.
var passwordKeys = []string{"password", "passfile", "sslpassword", "sslkey", "token", "secret"}

// String is the address without its password and without the parameters that may carry one.
func (d DSN) String() string {
	u, err := url.Parse(d.Reveal())
	if err != nil || u.Scheme == "" {
		return "[redacted]"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for key := range q {
		for _, bad := range passwordKeys {
			if strings.Contains(strings.ToLower(key), bad) {
				q.Del(key)
			}
		}
	}
	u.RawQuery, u.Fragment, u.RawFragment = strings.ReplaceAll(q.Encode(), "+", "%20"), "", "" // libpq knows no "+" for a space
	return u.String()
}

// GoString is String, for %#v.
func (d DSN) GoString() string { return d.String() }

// Format writes String whatever the verb.
func (d DSN) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// MarshalJSON writes String.
func (d DSN) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// MarshalText writes String, for YAML and XML.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// LogValue logs String.
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }
