package reencrypt

import "strings"

// TableName is one way to read what somebody called a table. An empty Schema means wherever the database looks first.
type TableName struct{ Schema, Table string }

// TableNames are the ways to read a table's name: as it stands, and as schema and table with the cut at any of its dots.
// In SQL's quoted form ("a.b" or "s"."t", quotes doubled inside) there is only one. Nothing is folded to lower case.
func TableNames(text string) []TableName {
	if parts, ok := unquote(text); ok {
		if len(parts) == 1 {
			return []TableName{{"", parts[0]}}
		}
		return []TableName{{parts[0], parts[1]}}
	}
	out := []TableName{{"", text}}
	for i := range len(text) {
		if text[i] == '.' && i > 0 && i < len(text)-1 {
			out = append(out, TableName{text[:i], text[i+1:]})
		}
	}
	return out
}

// unquote reads one or two quoted identifiers joined by a dot, and nothing else.
func unquote(text string) (parts []string, ok bool) {
	for len(parts) < 2 {
		part, rest, ok := cutQuoted(text)
		if !ok {
			return nil, false
		}
		if parts = append(parts, part); rest == "" {
			return parts, true
		}
		if text, ok = strings.CutPrefix(rest, "."); !ok {
			return nil, false
		}
	}
	return nil, false
}

// cutQuoted splits one quoted identifier off text.
func cutQuoted(text string) (name, rest string, ok bool) {
	if len(text) < 3 || text[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] != '"':
			b.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), text[i+1:], b.Len() > 0
		}
	}
	return "", "", false
}

// Quoted is an identifier as SQL takes it, whatever it holds. (A zero byte can't be in one: no catalogue has it.)
func Quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
