package mysql

import (
	"crypto/tls"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// address is a URL taken apart.
type address struct {
	user, password, database string
	network, host            string // host: of the certificate
	addr                     string // to dial
	encrypt                  bool
	timeout                  time.Duration
	printable                string
}

// parameters are the only ones that a URL may carry. Those of other drivers that name files, load them or change the
// session are left out on purpose: a dataset is registered through the API, and the API sets no path on the server's host
// but that of a socket.
var parameters = []string{"tls", "socket", "connect_timeout"}

const defaultPort = "3306"

func parseURL(dsn reencrypt.DSN) (address, error) {
	u, err := url.Parse(dsn.Reveal())
	switch {
	case err != nil:
		return address{}, errURL("it isn't a URL") // err quotes it
	case u.Scheme != "mysql" && u.Scheme != "mariadb" || u.Opaque != "":
		return address{}, errURL("it must begin with mysql:// or mariadb://")
	case u.User == nil || u.User.Username() == "":
		return address{}, errURL("it names no user")
	case u.Fragment != "" || strings.Contains(dsn.Reveal(), "#"):
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
	a := address{user: u.User.Username(), database: u.Path[1:], network: "tcp", host: u.Hostname(), timeout: 10 * time.Second}
	a.password, _ = u.User.Password()
	clean := url.URL{Scheme: u.Scheme, User: url.User(a.user), Host: u.Host, Path: u.Path, RawQuery: query.Encode()}
	a.printable = clean.String()
	if err := a.reach(u, query); err != nil {
		return address{}, err
	}
	return a, nil
}

// reach fills in where to connect, and whether the way there is encrypted: always across a network, unless the URL says
// tls=disable. A certificate is always checked, name included, against the authorities that the process trusts.
func (a *address) reach(u *url.URL, query url.Values) error {
	local := true
	switch port := u.Port(); {
	case query.Has("socket"):
		a.network, a.addr = "unix", query.Get("socket")
	case port != "" && !number(port):
		return errURL("its port must be a number")
	default:
		if port == "" {
			port = defaultPort
		}
		a.addr = net.JoinHostPort(a.host, port)
		ip := net.ParseIP(a.host)
		local = a.host == "localhost" || ip != nil && ip.IsLoopback()
	}
	switch mode := query.Get("tls"); {
	case !query.Has("tls"):
		a.encrypt = !local
	case mode == "verify-full" && a.network == "tcp":
		a.encrypt = true
	case mode != "disable":
		return errURL("tls must be verify-full, or disable, and a socket has none")
	}
	if text := query.Get("connect_timeout"); query.Has("connect_timeout") {
		seconds, err := strconv.Atoi(text)
		if !number(text) || err != nil || seconds == 0 {
			return errURL("connect_timeout must be a number of seconds")
		}
		a.timeout = time.Duration(seconds) * time.Second
	}
	return nil
}

func number(s string) bool { return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == "" }

// cleanQuery is the parameters, each from the list and once, and exactly one of host and socket.
func cleanQuery(u *url.URL) (url.Values, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errURL("its parameters behind the ? can't be read")
	}
	for name, values := range query {
		if !slices.Contains(parameters, name) || len(values) != 1 {
			return nil, errURL("the only parameters behind the ? are tls, socket and connect_timeout, each once")
		}
	}
	switch socket := query.Get("socket"); {
	case query.Has("socket") && u.Host != "":
		return nil, errURL("it names the host twice")
	case query.Has("socket") && (!path.IsAbs(socket) || path.Clean(socket) != socket || strings.ContainsRune(socket, 0)):
		return nil, errURL("socket must be the absolute path of the server's socket")
	case !query.Has("socket") && u.Hostname() == "":
		return nil, errURL("it names no host")
	}
	return query, nil
}

// config is what the library connects with. It is filled in field by field: nothing of a URL is ever made into the
// library's own kind of address, and every option that would let a server or a value reach further stays off (a server
// that asks for a local file, passwords in clear, statements in a row, values pasted into statements).
func (a address) config() *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = a.user, a.password, a.database
	c.Net, c.Addr, c.Timeout = a.network, a.addr, a.timeout
	c.MaxAllowedPacket = 0 // what the server says
	c.ClientFoundRows = true
	c.ConnectionAttributes = "program_name:keyturn"
	c.Logger = &mysql.NopLogger{} // it would write to the process's own standard error
	if a.encrypt {
		c.TLS = &tls.Config{ServerName: a.host, MinVersion: tls.VersionTLS12}
	}
	return c
}
