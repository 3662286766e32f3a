package reencrypt

import (
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/internal/material"
)

// DSN is a connection URL that may hold a password. Whatever prints, formats or encodes it gets "[redacted]"; only a
// driver asks for its text, by Reveal, to connect.
type DSN struct {
	// A function and not a string: fmt reads unexported fields of a surrounding struct without asking any method.
	text    func() string
	network bool // it came over the network: see open
}

// NewDSN takes a connection URL as it was given.
func NewDSN(text string) DSN { return DSN{text: func() string { return text }} }

// Reveal is the URL itself, password included: for drivers and for the sealing of the dataset's record, nobody else.
func (d DSN) Reveal() string {
	if d.text == nil {
		return ""
	}
	return d.text()
}

// Scheme is what stands before the first colon, in lower case: it chooses the driver. It is safe to print only when it
// is one of a driver's schemes, because a password pasted alone would be taken for one.
func (d DSN) Scheme() string {
	scheme, _, ok := strings.Cut(d.Reveal(), ":")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}

// String returns "[redacted]".
func (d DSN) String() string { return material.Redacted }

// GoString returns "[redacted]", for %#v.
func (d DSN) GoString() string { return material.Redacted }

// Format prints "[redacted]" under every verb.
func (d DSN) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, material.Redacted) }

// MarshalText returns "[redacted]", for every encoder that knows encoding.TextMarshaler.
func (d DSN) MarshalText() ([]byte, error) { return []byte(material.Redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (d DSN) MarshalJSON() ([]byte, error) { return []byte(`"` + material.Redacted + `"`), nil }
