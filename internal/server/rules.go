package server

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/go-playground/validator/v10"
)

// rules are the tags of our own, beside those of the validator library.
var rules = map[string]func(text string) bool{
	"store":    func(text string) bool { _, err := storeDriver(text); return err == nil },
	"master":   func(text string) bool { _, err := masterDriver(text); return err == nil },
	"listen":   func(text string) bool { _, err := parseAddress(text); return err == nil },
	"loopback": isLoopback,
	"abspath":  func(text string) bool { return filepath.IsAbs(text) && !strings.ContainsRune(text, 0) },
}

// ruleTexts says what each rule wants, for people.
var ruleTexts = map[string]string{
	"store":         "must be sqlite, sqlite:///PATH or postgres://USER@HOST/DATABASE",
	"master":        "must be the URL of a master key: env://NAME, file:///PATH or escrow://",
	"listen":        "must be https://HOST:PORT, unix:///PATH, or http://HOST:PORT with a loopback address",
	"loopback":      "must be HOST:PORT with a loopback address",
	"required":      "is missing",
	"required_with": "is missing: certificate and key are given together",
	"printascii":    "must be printable ASCII",
	"abspath":       "must be an absolute path of a file",
}

// ruleText says what a rule wants of a value of some kind.
func ruleText(tag, param string, kind reflect.Kind) string {
	unit := map[reflect.Kind]string{reflect.Slice: " entries", reflect.String: " characters"}[kind]
	switch tag {
	case "min":
		return "must be at least " + param + unit
	case "max":
		return "must be at most " + param + unit
	case "oneof":
		return "must be one of " + strings.ReplaceAll(param, " ", ", ")
	}
	if text, ok := ruleTexts[tag]; ok {
		return text
	}
	return "must be a host name or an IP address"
}

func newValidator() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("koanf") })
	v.RegisterCustomTypeFunc(func(f reflect.Value) any { return f.Interface().(DSN).Reveal() }, DSN{})
	for tag, holds := range rules {
		err := v.RegisterValidation(tag, func(fl validator.FieldLevel) bool { return holds(fl.Field().String()) })
		if err != nil {
			panic("server: rule " + tag + ": " + err.Error())
		}
	}
	return v
}

// address is one place to listen at.
type address struct {
	scheme string // https, http or unix
	host   string // HOST:PORT; empty for unix
	path   string // of the socket
}

func (a address) String() string {
	if a.scheme == "unix" {
		return "unix://" + a.path
	}
	return a.scheme + "://" + a.host
}

// parseAddress reads one entry of listen.
func parseAddress(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return address{}, formError(ruleTexts["listen"])
	}
	a := address{scheme: u.Scheme, host: u.Host, path: u.Path}
	ok := false
	switch a.scheme {
	case "unix":
		ok = a.host == "" && filepath.IsAbs(a.path)
	case "https":
		ok = isHostPort(a.host) && (a.path == "" || a.path == "/")
	case "http":
		ok = isLoopback(a.host) && (a.path == "" || a.path == "/")
	}
	if !ok {
		return address{}, formError(ruleTexts["listen"])
	}
	return a, nil
}

func isHostPort(text string) bool {
	_, port, err := net.SplitHostPort(text)
	return err == nil && port != ""
}

// isLoopback says whether HOST:PORT can be reached from this machine only. A name other than localhost could come to
// mean another address, so it isn't.
func isLoopback(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || port == "" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
