package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// relation is a row of sqlTables.
type relation struct {
	schema, name, kind, engine, options string
	rows                                int64
}

// lookUp finds the one table that text names: in the database of the URL, or with the name of another one in front.
func (d *database) lookUp(ctx context.Context, c *conn, text string) (relation, error) {
	if strings.IndexByte(text, 0) >= 0 || text == "" {
		return relation{}, errNoTable(text, nil)
	}
	var all []relation
	for _, n := range reencrypt.TableNames(text) {
		if n.Schema == "" {
			n.Schema = d.name
		}
		rows, err := c.query(ctx, sqlTables, n.Schema, n.Table)
		if err != nil {
			return relation{}, err
		}
		for _, r := range rows {
			if r.text(0) != n.Schema || r.text(1) != n.Table {
				continue
			}
			found := relation{schema: r.text(0), name: r.text(1), kind: r.text(2), engine: r.text(3), options: r.text(5), rows: -1}
			if !r.null(4) {
				found.rows = r.number(4)
			}
			all = append(all, found)
		}
	}
	switch len(all) {
	case 0:
		near, err := c.query(ctx, sqlNear, text, text)
		if err != nil {
			return relation{}, err
		}
		return relation{}, errNoTable(text, near)
	case 1:
		return all[0], nil
	}
	return relation{}, fault.Newf(api.CodeInvalid, "looking for table %q: the name fits several", text).WithField("table").
		WithNext(`write it quoted, "database"."table" or "table"`)
}

func errNoTable(text string, near []row) error {
	err := fault.Newf(api.CodeNotFound, "looking for table %q: the database has none that its user may see", text).WithField("table")
	if len(near) > 0 {
		return err.WithNext(fmt.Sprintf("is it %s.%s? Names are taken exactly, upper and lower case differ", near[0].text(0), near[0].text(1)))
	}
	return err.WithNext("check the name, and whether it lies in another database of the server (database.table)")
}
