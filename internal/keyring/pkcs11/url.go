package pkcs11

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// address is a master key's place, read from its URL.
type address struct {
	label, serial string // of the token: label and serial number; at least one is set
	object, id    string // of the key: label and CKA_ID (raw bytes); at least one is set
	module        string // absolute path of the library
	pinFile       string // absolute path; empty: the environment variable
}

// The characters that stand for themselves in a value, beside letters and digits: RFC 7512, section 2.3. Everything else is
// percent-encoded. That leaves ';' out of paths and '&' out of queries.
const (
	inPath  = "-._~:[]@!$'()*+,=&"
	inQuery = "-._~:[]@!$'()*+,=/?|"
)

// maxURL is more than any sensible URL needs, in bytes.
const maxURL = 2048

// unsupported are attributes of the RFC that are refused by name; others aren't quoted, for they could be anything.
var unsupported = map[string]string{
	"pin-value":            "a URL is printed, and a PIN isn't: put it into a file (pin-source=file:/path) or into " + pinVariable,
	"module-name":          "a name would be searched for: name the library by its absolute path, module-path=/path/to/library.so",
	"slot-id":              "slots change their numbers: name the token by token= or serial=",
	"slot-manufacturer":    "name the token by token= or serial=",
	"slot-description":     "name the token by token= or serial=",
	"manufacturer":         "name the token by token= or serial=",
	"model":                "name the token by token= or serial=",
	"library-manufacturer": "name the library by module-path=",
	"library-version":      "name the library by module-path=",
	"library-description":  "name the library by module-path=",
}

// parse reads a URL strictly: known attributes only, each once, none empty.
func parse(raw string) (a address, err error) {
	rest, ok := strings.CutPrefix(raw, scheme+":")
	if !ok || len(raw) > maxURL {
		return a, badURL("it doesn't begin with pkcs11:, or is too long")
	}
	path, query, asked := strings.Cut(rest, "?")
	kind := ""
	if err := attributes(path, ";", inPath, map[string]*string{
		"token": &a.label, "serial": &a.serial, "object": &a.object, "id": &a.id, "type": &kind,
	}); err != nil {
		return a, err
	}
	pin := ""
	if !asked {
		return a, badURL("it has no module-path")
	}
	if err := attributes(query, "&", inQuery, map[string]*string{"module-path": &a.module, "pin-source": &pin}); err != nil {
		return a, err
	}
	if a.pinFile, err = pinPath(pin); err != nil {
		return a, err
	}
	return a, a.check(kind)
}

func (a address) check(kind string) error {
	switch {
	case a.label == "" && a.serial == "":
		return badURL("it names no token (token= or serial=)")
	case a.object == "" && a.id == "":
		return badURL("it names no key (object= or id=)")
	case kind != "" && kind != "secret-key":
		return badURL("its type isn't secret-key")
	case !printable(a.label) || !printable(a.serial) || !printable(a.object):
		return badURL("a label or serial number isn't printable UTF-8")
	case !cleanPath(a.module):
		return badURL("its module-path isn't the absolute path of a library")
	}
	return nil
}

// pinPath is the path of pin-source: file:/path, file:///path or the path itself. RFC 7512 also has "|command" there, which
// would be a program to run.
func pinPath(source string) (string, error) {
	if source == "" {
		return "", nil
	}
	path := source
	if p, ok := strings.CutPrefix(source, "file:"); ok {
		path = p
		if p, ok := strings.CutPrefix(p, "//"); ok {
			path = p
		}
	}
	if !cleanPath(path) {
		return "", badURL("its pin-source isn't file:/ and the absolute path of a file")
	}
	return path, nil
}

// attributes reads name=value pairs into where their names point.
func attributes(text, separator, allowed string, into map[string]*string) error {
	for pair := range strings.SplitSeq(text, separator) {
		name, value, ok := strings.Cut(pair, "=")
		if why := unsupported[name]; why != "" {
			return badURL("attribute " + name + " is refused").WithNext(why)
		}
		to := into[name]
		switch {
		case !ok || to == nil:
			return badURL("it has an attribute that isn't known there")
		case *to != "":
			return badURL("attribute " + name + " stands there twice")
		}
		if *to, ok = decode(value, allowed); !ok || *to == "" {
			return badURL("the value of attribute " + name + " is empty, or not encoded as RFC 7512 says")
		}
	}
	return nil
}

// decode undoes percent-encoding. A character that stands for itself must be allowed to; '+' is a plus.
func decode(text, allowed string) (string, bool) {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '%':
			if i+2 >= len(text) {
				return "", false
			}
			high, low := unhex(text[i+1]), unhex(text[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			out = append(out, byte(high<<4|low))
			i += 2
		case alphanumeric(c) || strings.IndexByte(allowed, c) >= 0:
			out = append(out, c)
		default:
			return "", false
		}
	}
	return string(out), true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// unhex is the value of a hexadecimal digit, negative for everything else.
func unhex(c byte) int {
	if 'A' <= c && c <= 'F' {
		c += 'a' - 'A'
	}
	return strings.IndexByte("0123456789abcdef", c)
}

// String is the canonical URL: attributes in one order, one spelling of each value, commas encoded (they separate URLs in
// KEYTURN_MASTER_KEYS). It holds nothing secret.
func (a address) String() string {
	var path, query []string
	for _, p := range []struct{ name, value string }{{"token", a.label}, {"serial", a.serial}, {"object", a.object}} {
		if p.value != "" {
			path = append(path, p.name+"="+encode(p.value, "-._~"))
		}
	}
	if a.id != "" {
		path = append(path, "id="+encodeAll(a.id))
	}
	query = append(query, "module-path="+encode(a.module, "-._~/"))
	if a.pinFile != "" {
		query = append(query, "pin-source=file:"+encode(a.pinFile, "-._~/"))
	}
	return scheme + ":" + strings.Join(path, ";") + "?" + strings.Join(query, "&")
}

// canonical is Driver.Canonical, with PKCS#11 support and without.
func canonical(raw string) (string, error) {
	at, err := parse(raw)
	return at.String(), err
}

func encode(text, plain string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; alphanumeric(c) || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString(encodeAll(text[i : i+1]))
		}
	}
	return b.String()
}

func encodeAll(text string) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, 3*len(text))
	for i := range len(text) {
		out = append(out, '%', digits[text[i]>>4], digits[text[i]&15])
	}
	return string(out)
}

func printable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func cleanPath(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/" && printable(path)
}

func badURL(why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading a PKCS#11 master key's URL: "+why).WithField(keyring.FieldURL).
		WithNext("write pkcs11:token=LABEL;object=LABEL?module-path=/path/to/library.so")
}
