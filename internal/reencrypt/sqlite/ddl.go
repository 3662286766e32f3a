package sqlite

import (
	"slices"
	"strings"
)

// What the catalogue's pragmas don't say stands in the texts of its CREATE statements: which columns a check, a generated
// column, an expression in an index or a trigger looks at. They are not parsed, only cut into words: enough to say whether
// a column is mentioned, and a mention too many is no harm.

// token is one word, name, string or sign of SQL.
type token struct {
	text string // without quotes
	kind tokenKind
}

type tokenKind byte

const (
	sign tokenKind = iota // one character
	word                  // bare: a keyword, a name or a number
	name                  // quoted as a name
	str                   // quoted as a string
)

// keyword reports whether the token is this keyword, written in upper case.
func (t token) keyword(k string) bool { return t.kind == word && strings.EqualFold(t.text, k) }

// names reports whether the token can be this column.
func (t token) names(column string) bool {
	return (t.kind == word || t.kind == name) && strings.EqualFold(t.text, column)
}

// tokens cuts SQL into words, without its comments.
func tokens(sql string) (out []token) {
	for len(sql) > 0 {
		switch c := sql[0]; {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			_, sql, _ = strings.Cut(sql[2:], "*/")
		case c == '"' || c == '`' || c == '\'' || c == '[':
			var t token
			t, sql = quotedToken(sql)
			out = append(out, t)
		case wordByte(c):
			n := 1
			for n < len(sql) && wordByte(sql[n]) {
				n++
			}
			out = append(out, token{sql[:n], word})
			sql = sql[n:]
		case strings.IndexByte(" \t\r\n\f", c) >= 0:
			sql = sql[1:]
		default:
			out = append(out, token{sql[:1], sign})
			sql = sql[1:]
		}
	}
	return out
}

// wordByte: letters, digits, _, $ and everything beyond ASCII, as SQLite has it.
func wordByte(c byte) bool {
	return c >= 0x80 || c == '_' || c == '$' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// quotedToken splits a quoted token off. The quote itself is doubled inside, except ].
func quotedToken(sql string) (t token, rest string) {
	open, end, kind := sql[0], sql[0], name
	switch open {
	case '[':
		end = ']'
	case '\'':
		kind = str
	}
	var b strings.Builder
	for i := 1; i < len(sql); i++ {
		switch {
		case sql[i] != end:
			b.WriteByte(sql[i])
		case open != '[' && i+1 < len(sql) && sql[i+1] == end:
			b.WriteByte(end)
			i++
		default:
			return token{b.String(), kind}, sql[i+1:]
		}
	}
	return token{b.String(), kind}, ""
}

// mentions reports whether a column's name is among the tokens.
func mentions(ts []token, column string) bool {
	return slices.ContainsFunc(ts, func(t token) bool { return t.names(column) })
}

// group is the tokens between the parenthesis at ts[i] and its partner, nil where there is none.
func group(ts []token, i int) []token {
	if i >= len(ts) || ts[i].kind != sign || ts[i].text != "(" {
		return nil
	}
	depth := 0
	for j := i; j < len(ts); j++ {
		switch {
		case ts[j].kind != sign:
		case ts[j].text == "(":
			depth++
		case ts[j].text == ")":
			if depth--; depth == 0 {
				return ts[i+1 : j]
			}
		}
	}
	return ts[i+1:]
}

// definitions are the columns and constraints of a CREATE TABLE statement.
func definitions(sql string) (out [][]token) {
	ts := tokens(sql)
	open := slices.IndexFunc(ts, func(t token) bool { return t.kind == sign && t.text == "(" })
	if open < 0 {
		return nil
	}
	body, depth, start := group(ts, open), 0, 0
	for i, t := range body {
		switch {
		case t.kind != sign:
		case t.text == "(":
			depth++
		case t.text == ")":
			depth--
		case t.text == "," && depth == 0:
			out = append(out, body[start:i])
			start = i + 1
		}
	}
	return append(out, body[start:])
}

// check is a CHECK constraint.
type check struct {
	name string // empty without one
	expr []token
}

// checks are the CHECK constraints of a definition.
func checks(def []token) (out []check) {
	for i, t := range def {
		if !t.keyword("CHECK") {
			continue
		}
		if expr := group(def, i+1); expr != nil {
			c := check{expr: expr}
			if i >= 2 && def[i-2].keyword("CONSTRAINT") {
				c.name = def[i-1].text
			}
			out = append(out, c)
		}
	}
	return out
}

// updateTrigger says whether a CREATE TRIGGER statement is about updates, and of which columns; none means of any.
func updateTrigger(sql string) (columns []token, ok bool) {
	ts := tokens(sql)
	event := slices.IndexFunc(ts, func(t token) bool { return t.keyword("UPDATE") || t.keyword("INSERT") || t.keyword("DELETE") })
	if event < 0 || !ts[event].keyword("UPDATE") {
		return nil, false
	}
	if ts = ts[event+1:]; len(ts) == 0 || !ts[0].keyword("OF") {
		return nil, true
	}
	on := slices.IndexFunc(ts, func(t token) bool { return t.keyword("ON") })
	return ts[1:max(1, on)], true
}
