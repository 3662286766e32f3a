package server

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/internal/keys"
)

// setting is one key of the configuration, found by reflection over Config: so the loader, the environment's names and
// the reference page can't disagree with the fields.
type setting struct {
	path  string // "tls.certFile"
	def   string // the default, as one would write it
	field string // "TLSConfig.CertFile": where its comment stands
	rule  string // in words; may be empty
	value reflect.Value
}

// settingsOf lists the settings of cfg in the order of the fields. Setting value changes cfg.
func settingsOf(cfg *Config) []setting { return settingsIn(reflect.ValueOf(cfg).Elem(), "") }

func settingsIn(v reflect.Value, prefix string) (out []setting) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		path := prefix + f.Tag.Get("koanf")
		if def, leaf := f.Tag.Lookup("default"); leaf {
			out = append(out, setting{path: path, def: def, field: t.Name() + "." + f.Name, rule: ruleOf(f), value: v.Field(i)})
		} else {
			out = append(out, settingsIn(v.Field(i), path+".")...)
		}
	}
	return out
}

// env is the name of the environment variable that sets it: KEYTURN_TLS__CERT_FILE.
func (s setting) env() string {
	var b strings.Builder
	b.WriteString(envPrefix)
	for _, r := range s.path {
		switch {
		case r == '.':
			b.WriteString("__")
		case unicode.IsUpper(r):
			b.WriteString("_" + string(r))
		default:
			b.WriteRune(unicode.ToUpper(r))
		}
	}
	return b.String()
}

// set puts raw, as the YAML parser, the environment or a flag gave it, into the field. An error says what form is wanted
// and never quotes the value.
func (s setting) set(raw any) error {
	switch field := s.value.Addr().Interface().(type) {
	case *[]string:
		list, err := listOf(raw)
		*field = list
		return err
	case *DSN:
		text, ok := raw.(string)
		*field = NewDSN(text)
		return wants(ok, "text")
	case *string:
		text, ok := raw.(string)
		*field = text
		return wants(ok, "text")
	case *time.Duration:
		d, err := keys.ParsePeriod(strings.TrimSpace(fmt.Sprint(raw)))
		*field = d
		return wants(err == nil, `a duration such as 90s, 12h or 30d`)
	case *Policies:
		list, err := policiesOf(raw)
		*field = list
		return err
	case *int:
		n, err := strconv.Atoi(strings.TrimSpace(fmt.Sprint(raw)))
		*field = n
		return wants(err == nil, "a whole number")
	}
	panic("server: no way to set " + s.path)
}

type formError string

func (e formError) Error() string { return string(e) }

func wants(ok bool, what string) error {
	if ok {
		return nil
	}
	return formError("must be " + what)
}

// listOf takes a list, or one text with commas. "" is the empty list.
func listOf(raw any) ([]string, error) {
	switch v := raw.(type) {
	case string:
		var list []string
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		return list, nil
	case []string:
		return v, nil
	case []any:
		list := make([]string, 0, len(v))
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, formError("must be a list of texts")
			}
			list = append(list, text)
		}
		return list, nil
	}
	return nil, formError("must be a text or a list of texts")
}
