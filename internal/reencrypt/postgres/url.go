package postgres

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// address is a URL taken apart.
type address struct {
	user, password string
	conn           string // for pgconn, without the password
	printable      string // for people: the same without any doubt
}

// parameters are the only ones that a URL may carry. Those that name files or change the session (sslkey, sslrootcert,
// passfile, service, options …) are left out on purpose: a dataset is registered through the API, and the API sets no path
// on the server's host. The environment variables of libpq for TLS (PGSSLROOTCERT, PGSSLCERT, PGSSLKEY) count.
var parameters = []string{"sslmode", "host", "port", "connect_timeout"}

var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

func parseURL(dsn reencrypt.DSN) (address, error) {
	u, err := url.Parse(dsn.Reveal())
	switch {
	case err != nil:
		return address{}, errURL("it isn't a URL") // err quotes it
	case u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "":
		return address{}, errURL("it must begin with postgres://")
	case u.User == nil || u.User.Username() == "":
		return address{}, errURL("it names no user")
	case u.Fragment != "":
		return address{}, errURL("a # in it must be written as %23")
	case len(u.Path) < 2 || u.Path[0] != '/' || strings.Contains(u.Path[1:], "/"):
		return address{}, errURL("it must name one database behind the host")
	case strings.ContainsRune(u.Path+u.Host+u.User.Username(), 0):
		return address{}, errURL("it holds a zero byte")
	}
	query, err := cleanQuery(u)
	if err != nil {
		return address{}, err
	}
	a := address{user: u.User.Username()}
	a.password, _ = u.User.Password()
	clean := url.URL{Scheme: "postgres", User: url.User(a.user), Host: u.Host, Path: u.Path, RawQuery: query.Encode()}
	a.printable = clean.String()

	if !query.Has("sslmode") && !local(u, query) {
		query.Set("sslmode", "require") // never clear text across a network unless the URL says so
	}
	if !query.Has("connect_timeout") {
		query.Set("connect_timeout", "10")
	}
	clean.RawQuery = query.Encode()
	a.conn = clean.String()
	return a, nil
}

// cleanQuery is the parameters, checked: each from the list, once, with a harmless value.
func cleanQuery(u *url.URL) (url.Values, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errURL("its parameters behind the ? can't be read")
	}
	for name, values := range query {
		if !slices.Contains(parameters, name) || len(values) != 1 {
			return nil, errURL("the only parameters behind the ? are sslmode, host, port and connect_timeout, each once")
		}
	}
	if mode := query.Get("sslmode"); query.Has("sslmode") && !slices.Contains(sslModes, mode) {
		return nil, errURL("sslmode must be one of " + strings.Join(sslModes, ", "))
	}
	for _, name := range []string{"port", "connect_timeout"} {
		if v := query.Get(name); query.Has(name) && (v == "" || len(v) > 5 || strings.Trim(v, "0123456789") != "") {
			return nil, errURL(name + " must be a number")
		}
	}
	switch host := query.Get("host"); {
	case query.Has("host") && u.Host != "":
		return nil, errURL("it names the host twice")
	case query.Has("host") && (!path.IsAbs(host) || path.Clean(host) != host):
		return nil, errURL("host behind the ? must be the absolute path of a socket's directory")
	case !query.Has("host") && u.Hostname() == "":
		return nil, errURL("it names no host")
	}
	return query, nil
}

// local reports whether the connection stays on this machine.
func local(u *url.URL, query url.Values) bool {
	if query.Has("host") || u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}
