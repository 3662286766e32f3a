package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// server is a row of sqlServer.
type server struct {
	readOnly, logs bool
	logFormat      string
	durable        bool // a commit that was acknowledged survives a power cut by itself
}

func serverOf(ctx context.Context, c *conn) (server, error) {
	rows, err := c.query(ctx, sqlServer)
	if err != nil {
		return server{}, err
	}
	on := func(i int) bool { t := rows[0].text(i); return t != "0" && !strings.EqualFold(t, "OFF") && t != "" }
	s := server{readOnly: on(0), logs: on(1), logFormat: strings.ToUpper(rows[0].text(2))}
	s.durable = (rows[0].text(3) == "1" || rows[0].text(3) == "3") && (!s.logs || rows[0].text(4) == "1")
	return s, nil
}

// refusal is why no row of the relation can be updated in place, or empty.
func (r relation) refusal(s server) string {
	switch {
	case r.kind == "VIEW" || r.kind == "SYSTEM VIEW":
		return "it is a view; name the table behind it"
	case r.kind == "SYSTEM VERSIONED":
		return "it keeps its history (SYSTEM VERSIONING): old values would stay there, where nothing counts them"
	case r.kind != "BASE TABLE":
		return "it isn't a table"
	case !strings.EqualFold(r.engine, "InnoDB"):
		return fmt.Sprintf("its engine is %s, whose writes can't be taken back: a page could be written by half; use ALTER TABLE … ENGINE=InnoDB", r.engine)
	case s.readOnly:
		return "the server is read-only, a replica perhaps; name the one that takes writes"
	case s.logs && s.logFormat == "STATEMENT":
		return "the server's binary log takes statements, which can't say what was written; set binlog_format to MIXED or ROW"
	}
	return ""
}

// Describe looks the table up and collects what its catalogue says.
func (d *database) Describe(ctx context.Context, table string) (*reencrypt.Table, error) {
	c, err := d.connect(ctx, asking)
	if err != nil {
		return nil, err
	}
	defer c.close()
	r, err := d.lookUp(ctx, c, table)
	if err != nil {
		return nil, err
	}
	s, err := serverOf(ctx, c)
	if err != nil {
		return nil, err
	}
	t := &reencrypt.Table{Schema: r.schema, Name: r.name, Rows: r.rows, Refusal: r.refusal(s)}
	columns, err := columnsOf(ctx, c, r.schema, r.name)
	if err != nil {
		return nil, err
	}
	for _, col := range columns {
		t.Columns = append(t.Columns, col.describe())
	}
	indexes, err := indexesOf(ctx, c, r.schema, r.name)
	if err != nil {
		return nil, err
	}
	for _, x := range indexes {
		if x.identifies(columns) {
			t.Uniques = append(t.Uniques, x.columns)
			t.HasPK = t.HasPK || x.name == "PRIMARY"
		}
	}
	return t, d.addNotes(ctx, c, r, s, columns, indexes, t)
}

// index is the rows of sqlIndexes that are about one.
type index struct {
	name    string
	unique  bool
	btree   bool
	whole   bool // over whole columns only, none of them an expression
	columns []string
}

func indexesOf(ctx context.Context, c *conn, schema, table string) (out []index, err error) {
	rows, err := c.query(ctx, sqlIndexes, schema, table)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if len(out) == 0 || out[len(out)-1].name != r.text(0) {
			out = append(out, index{name: r.text(0), unique: r.text(1) == "0", btree: r.text(5) == "BTREE", whole: true})
		}
		x := &out[len(out)-1]
		x.whole = x.whole && r.null(3) && !r.null(2)
		if !r.null(2) {
			x.columns = append(x.columns, r.text(2))
		}
	}
	return out, nil
}

// identifies reports whether the index has every row once.
func (x index) identifies(columns []column) bool {
	if !x.unique || !x.btree || !x.whole {
		return false
	}
	for _, name := range x.columns {
		if c, err := find(columns, name); err != nil || !c.notNull {
			return false
		}
	}
	return true
}
