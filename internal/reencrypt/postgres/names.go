package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// lookUp finds the one relation that text names.
func lookUp(ctx context.Context, conn *pgconn.PgConn, text string) (found relation, err error) {
	if strings.IndexByte(text, 0) >= 0 {
		return relation{}, errNoTable(text, nil)
	}
	var all []relation
	for _, n := range reencrypt.TableNames(text) {
		rows, err := query(ctx, conn, sqlRelation, n.Schema, n.Table)
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
