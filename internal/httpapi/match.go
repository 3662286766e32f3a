package httpapi

import (
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// router finds the row of a path by its segments. It sees the very bytes that the decision and the audit record see:
// nothing is unescaped, cleaned or redirected on the way.
type router struct {
	byShape map[string][]*Route // the path with its variable segments as "*" -> rows, one for each method
}

// newRouter builds the router. Two rows with the same method and shape are a mistake in the table and panic.
func newRouter(routes []*Route) *router {
	rt := &router{byShape: map[string][]*Route{}}
	for _, r := range routes {
		shape := shapeOf(r.Pattern)
		if i := strings.IndexByte(shape, '*'); i >= 0 && nthSlash(shape, 3) != i-1 {
			panic("httpapi: the variable segment of " + r.Pattern + " is not the third")
		}
		for _, other := range rt.byShape[shape] {
			if other.Method == r.Method {
				panic("httpapi: two rows for " + r.Method + " " + r.Pattern)
			}
		}
		rt.byShape[shape] = append(rt.byShape[shape], r)
	}
	return rt
}

// shapeOf replaces the {…} of a pattern by "*", which no path can hold.
func shapeOf(pattern string) string {
	parts := strings.Split(pattern, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

// find gives the rows of a path, one for each method, and what stands in the place of their {…}. Every pattern with a
// {…} has it as its third segment ("/v1/keys/{key}/rotate"), so two lookups are enough. A row without it is looked for first:
// "/v1/audit/events" never is an event's name.
func (rt *router) find(path string) (rows []*Route, name string) {
	if rows := rt.byShape[path]; rows != nil {
		return rows, ""
	}
	start := nthSlash(path, 3)
	if start < 0 {
		return nil, ""
	}
	end := len(path)
	if i := strings.IndexByte(path[start+1:], '/'); i >= 0 {
		end = start + 1 + i
	}
	return rt.byShape[path[:start+1]+"*"+path[end:]], path[start+1 : end]
}

// nthSlash is the place of the nth slash, counted from 1, or -1.
func nthSlash(path string, n int) int {
	for i := range len(path) {
		if path[i] == '/' {
			if n--; n == 0 {
				return i
			}
		}
	}
	return -1
}

// methods lists the methods of rows, for the Allow header (RFC 9110 section 10.2.1).
func methods(rows []*Route) string {
	var names []string
	for _, r := range rows {
		names = append(names, r.Method)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// errPath is what every path that could be read in two ways is refused with.
var errPath = fault.New(api.CodeInvalid, "reading the path: only letters, digits, and single / . - _ may be in it, and no . or .. as a segment").
	WithField("path")

// checkPath refuses every path that some other reader (a proxy, a log, a policy) could take for another one: percent
// escapes, empty segments, "." and "..", backslashes, NUL and everything else that no name of ours holds.
func checkPath(u *url.URL) error {
	if u.RawPath != "" || u.Opaque != "" || len(u.Path) > 1024 || !strings.HasPrefix(u.Path, "/") {
		return errPath
	}
	dots := true // whether the current segment holds nothing but dots, or nothing at all
	for i := 1; i < len(u.Path); i++ {
		switch c := u.Path[i]; {
		case c == '/':
			if dots {
				return errPath
			}
			dots = true
		case isNameByte(c):
			dots = false
		case c != '.':
			return errPath
		}
	}
	if dots && len(u.Path) > 1 {
		return errPath
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
