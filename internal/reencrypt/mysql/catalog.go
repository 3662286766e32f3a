package mysql

// The questions to the catalogue. Everything of a user is a parameter. information_schema compares names without regard
// to upper and lower case, so every answer says which schema and table it is about, and lookups compare exactly.

// sqlTables: schema, table. Names that differ in case come too.
const sqlTables = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, CREATE_OPTIONS FROM information_schema.TABLES " +
	"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?"

// sqlNear: a table of any schema by its name alone, or schema.name.
const sqlNear = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES " +
	"WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND (TABLE_NAME = ? OR CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) = ?) LIMIT 1"

// sqlServer: what the whole server is set to.
const sqlServer = "SELECT @@read_only, @@log_bin, @@binlog_format, @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@innodb_doublewrite"

// sqlColumns: schema, table.
const sqlColumns = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH, " +
	"CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, COALESCE(GENERATION_EXPRESSION, ''), PRIVILEGES, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION " +
	"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION"

// sqlIndexes: schema, table. One row for each part of an index, the primary key's first. COLUMN_NAME is null for an
// expression, which MySQL has.
const sqlIndexes = "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, NULLABLE, INDEX_TYPE FROM information_schema.STATISTICS " +
	"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"

// sqlForeignKeys: schema, table, schema, table. Columns of this table that point elsewhere, or are pointed at.
const sqlForeignKeys = "SELECT CONSTRAINT_NAME, COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE " +
	"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND REFERENCED_TABLE_NAME IS NOT NULL " +
	"UNION SELECT CONSTRAINT_NAME, REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE " +
	"WHERE REFERENCED_TABLE_SCHEMA = ? AND REFERENCED_TABLE_NAME = ?"

// sqlChecks: schema, table. MySQL's CHECK_CONSTRAINTS names no table, so the constraints of the table are joined.
const sqlChecks = "SELECT DISTINCT c.CONSTRAINT_NAME, c.CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS AS c " +
	"JOIN information_schema.TABLE_CONSTRAINTS AS t ON t.CONSTRAINT_SCHEMA = c.CONSTRAINT_SCHEMA AND t.CONSTRAINT_NAME = c.CONSTRAINT_NAME " +
	"WHERE t.CONSTRAINT_TYPE = 'CHECK' AND t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ?"

// sqlMariaChecks: schema, table. On MariaDB several tables of a schema may have a check of one name.
const sqlMariaChecks = "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?"

// sqlTriggers: schema, table.
const sqlTriggers = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS " +
	"WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ? AND EVENT_MANIPULATION = 'UPDATE'"
