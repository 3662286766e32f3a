package mysql

import (
	"regexp"
	"strings"
)

// quote is an identifier as MySQL takes it, whatever it holds and whatever the session's sql_mode. (A zero byte can't be
// in one: no catalogue has it.)
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// word is what a character set or a collation is called; they can't be quoted everywhere.
var word = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
