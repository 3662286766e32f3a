package server

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/internal/material"
)

// DSN is a database's address that may hold a password. Printed, formatted, marshalled or logged in whatever way, it
// shows the address without it; Reveal is the one way to the whole.
type DSN struct{ text string }

// NewDSN wraps an address.
func NewDSN(text string) DSN { return DSN{text} }

// Reveal is the address with its password, for the driver that connects.
func (d DSN) Reveal() string { return d.text }

// String is the address without its password. What can't be read as an address is not shown at all.
func (d DSN) String() string {
	if !strings.Contains(d.text, "://") {
		if d.text == "" || d.text == "sqlite" {
			return d.text
		}
		return material.Redacted
	}
	u, err := url.Parse(d.text)
	if err != nil || u.Opaque != "" {
		return material.Redacted
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for name := range q {
		if strings.Contains(strings.ToLower(name), "pass") || name == "sslkey" {
			q.Del(name)
		}
	}
	u.RawQuery, u.Fragment = q.Encode(), ""
	return u.String()
}

// GoString is String, for %#v.
func (d DSN) GoString() string { return d.String() }

// Format prints String under every verb.
func (d DSN) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, d.String()) }

// MarshalText is String, for every encoder: JSON, YAML, log/slog.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
