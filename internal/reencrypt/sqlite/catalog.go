package sqlite

// The questions to the catalogue. Everything of a user is a parameter. A pragma whose schema argument is 'main' doesn't
// look anywhere else.

// sqlRelation: ?1 the exact name. SQLite's own tables don't count.
const sqlRelation = `SELECT l.name, l.type, l.wr, l.strict, s.sql
FROM pragma_table_list(?1) AS l LEFT JOIN main.sqlite_schema AS s ON s.name = l.name AND s.type IN ('table', 'view')
WHERE l.schema = 'main' AND l.name = ?1 COLLATE BINARY AND l.name NOT LIKE 'sqlite\_%' ESCAPE '\'`

// sqlNearNames: ?1 a name that fits none: one that is the same but for upper and lower case, or for its schema.
const sqlNearNames = `SELECT name FROM main.sqlite_schema
WHERE type = 'table' AND (name = ?1 COLLATE NOCASE OR 'main.' || name = ?1 COLLATE NOCASE) ORDER BY name LIMIT 1`

// sqlColumns: ?1 the table. hidden is 2 or 3 for a generated column.
const sqlColumns = `SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid`

// sqlIndexes: ?1 the table. One row for each key column of each index; the name is NULL for an expression.
const sqlIndexes = `SELECT l.name, l."unique", l.origin, l.partial, x.name, x.coll, s.sql
FROM pragma_index_list(?1, 'main') AS l JOIN pragma_index_xinfo(l.name, 'main') AS x
	LEFT JOIN main.sqlite_schema AS s ON s.type = 'index' AND s.name = l.name
WHERE x.key ORDER BY l.origin = 'pk' DESC, l.seq, x.seqno`

// sqlForeignKeys: ?1 the table. The other table and this one's column; NULL means this one's primary key.
const sqlForeignKeys = `SELECT f."table", f."from" FROM pragma_foreign_key_list(?1, 'main') AS f
UNION
SELECT s.name, f."to" FROM main.sqlite_schema AS s JOIN pragma_foreign_key_list(s.name, 'main') AS f
WHERE s.type = 'table' AND f."table" = ?1 COLLATE NOCASE`

// sqlTriggers: ?1 the table.
const sqlTriggers = `SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name`
