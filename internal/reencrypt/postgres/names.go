package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// name is one way to read what somebody called a table. An empty schema means the search path.
type name struct{ schema, table string }

// readings are the ways to read a table's name: as it stands, and as schema and table with the cut at any of its dots.
// In SQL's quoted form ("a.b", "s"."t") there is only one.
func readings(text string) []name {
	if parts, ok := unquote(text); ok {
		if len(parts) == 1 {
			return []name{{"", parts[0]}}
		}
		return []name{{parts[0], parts[1]}}
	}
	out := []name{{"", text}}
	for i := range len(text) {
		if text[i] == '.' && i > 0 && i < len(text)-1 {
			out = append(out, name{text[:i], text[i+1:]})
		}
	}
	return out
}

// unquote reads one or two quoted identifiers joined by a dot, and nothing else.
func unquote(text string) (parts []string, ok bool) {
	for len(parts) < 2 {
		if len(text) < 3 || text[0] != '"' {
			return nil, false
		}
		var part strings.Builder
		i := 1
		for ; i < len(text); i++ {
			if text[i] != '"' {
				part.WriteByte(text[i])
				continue
			}
			if i+1 >= len(text) || text[i+1] != '"' {
				break
			}
			part.WriteByte('"')
			i++
		}
		if i >= len(text) || part.Len() == 0 {
			return nil, false
		}
		parts, text = append(parts, part.String()), text[i+1:]
		if text == "" {
			return parts, true
		}
		if text[0] != '.' {
			return nil, false
		}
		text = text[1:]
	}
	return nil, false
}

// lookUp finds the one relation that text names.
func lookUp(ctx context.Context, conn *pgconn.PgConn, text string) (found relation, err error) {
	if strings.IndexByte(text, 0) >= 0 {
		return relation{}, errNoTable(text, nil)
	}
	var all []relation
	for _, n := range readings(text) {
		rows, err := query(ctx, conn, sqlRelation, n.schema, n.table)
		if err != nil {
			return relation{}, err
		}
		for _, row := range rows {
			all = append(all, relationOf(row))
		}
	}
	switch len(all) {
	case 0:
		near, err := query(ctx, conn, sqlNearNames, text)
		if err != nil {
			return relation{}, err
		}
		return relation{}, errNoTable(text, near)
	case 1:
		return all[0], nil
	}
	return relation{}, fault.Newf(api.CodeInvalid, "looking for table %q: the name fits several", text).WithField("table").
		WithNext(`write it quoted, "schema"."table" or "table"`)
}

func errNoTable(text string, near [][]string) error {
	err := fault.Newf(api.CodeNotFound, "looking for table %q: the database has none", text).WithField("table")
	if len(near) > 0 {
		return err.WithNext(fmt.Sprintf("is it %s.%s? Names are taken exactly, upper and lower case differ", near[0][0], near[0][1]))
	}
	return err.WithNext("check the name, and whether it lies in a schema (schema.table)")
}
