package httpapi

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/gate"
)

// Bounds of what a query may ask for.
const (
	maxPage      = 1000 // items a page
	defaultPage  = 100
	maxParamText = 256 // bytes of a text parameter
)

// text is a parameter's text, "" when it is absent.
func (p *Params) text(name string) (string, error) {
	s := p.query.Get(name)
	if len(s) > maxParamText || !utf8.ValidString(s) {
		return "", badField(name, "the parameter must be at most 256 bytes of UTF-8")
	}
	return s, nil
}

// number is a parameter between 0 and most, or other when it is absent.
func (p *Params) number(name string, other, most int) (int, error) {
	s := p.query.Get(name)
	if s == "" {
		return other, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || int(n) > most {
		return 0, badField(name, "the parameter must be a number from 0 to "+strconv.Itoa(most))
	}
	return int(n), nil
}

// page reads "after" and "limit".
func (p *Params) page() (after string, limit int, err error) {
	if after, err = p.text("after"); err != nil {
		return "", 0, err
	}
	limit, err = p.number("limit", defaultPage, maxPage)
	if limit == 0 {
		limit = defaultPage
	}
	return after, limit, err
}

// flag is a parameter that is "true" or "false"; absent is false.
func (p *Params) flag(name string) (bool, error) {
	switch p.query.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badField(name, "the parameter must be true or false")
}

// when is a time in RFC 3339; absent is the zero time.
func (p *Params) when(name string) (time.Time, error) {
	s := p.query.Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, badField(name, "the parameter must be a time such as 2026-01-15T10:30:45Z")
	}
	return t.UTC(), nil
}

// events reads the parameters of the audit routes.
func (p *Params) events() (f gate.Filter, err error) {
	var kind string
	for name, field := range map[string]*string{"type": &kind, "resource": &f.Resource, "user": &f.User, "after": &f.After} {
		if *field, err = p.text(name); err != nil {
			return f, err
		}
	}
	f.Type = audit.EventType(kind)
	if f.Since, err = p.when("since"); err != nil {
		return f, err
	}
	if f.Until, err = p.when("until"); err != nil {
		return f, err
	}
	if f.Failed, err = p.flag("failed"); err != nil {
		return f, err
	}
	f.Limit, err = p.number("limit", 0, 1<<31-1)
	return f, err
}
