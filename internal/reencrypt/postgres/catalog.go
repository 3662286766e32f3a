package postgres

// The questions to the catalogue. All names in them are PostgreSQL's own; everything of a user is a parameter. What
// format_type and regtype print comes quoted where it needs to be. Operators without a schema compare catalogue types
// only, on sessions whose search path looks into pg_catalog first unless somebody put it elsewhere by name.

// sqlStore: $1 schema. Whether the tables of a store of keyturn's stand in it, whatever the schema is called.
const sqlStore = `SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) 4 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
	WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relname IN ('keks', 'kek_wrappings', 'key_versions', 'audit_segments')`

// sqlRelation: $1 schema or empty for the search path, $2 name. The estimate is -1 as long as a part was never analysed.
const sqlRelation = `SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence,
	pg_catalog.row_security_active(c.oid), pg_catalog.pg_is_in_recovery(),
	EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2'),
	c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
	(SELECT CASE WHEN pg_catalog.min(p.reltuples) < 0 THEN -1 ELSE pg_catalog.sum(p.reltuples)::bigint END
		FROM pg_catalog.pg_class p WHERE p.relkind = 'r' AND
			(p.oid = c.oid OR p.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t))),
	pg_catalog.current_setting('fsync')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
	AND CASE WHEN $1 = '' THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1 END`

// sqlNearNames: tables whose name, or schema and name, is $1 but for upper and lower case, in any schema.
const sqlNearNames = `SELECT n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND pg_catalog.lower($1) IN
	(pg_catalog.lower(c.relname::text), pg_catalog.lower(n.nspname::text || '.' || c.relname::text)) LIMIT 1`

// sqlColumns: $1 the relation. A domain is followed down to its base type; the first type modifier on the way counts.
// The base type is printed for -1, "no modifier": for NULL it would be "character", which SQL takes for character(1).
const sqlColumns = `SELECT a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
	b.oid, pg_catalog.format_type(b.oid, -1), b.typname, bn.nspname = 'pg_catalog' OR b.typtype = 'e', b.typarray <> 0,
	b.typmod, a.attnotnull OR b.isnotnull, a.attgenerated <> '',
	pg_catalog.has_column_privilege($1::oid, a.attnum, 'SELECT'), pg_catalog.has_column_privilege($1::oid, a.attnum, 'UPDATE')
FROM pg_catalog.pg_attribute a
CROSS JOIN LATERAL (
	WITH RECURSIVE down AS (
		SELECT t.oid, t.typtype, t.typbasetype, a.atttypmod AS typmod, false AS isnotnull, 0 AS depth
		FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
		UNION ALL
		SELECT t.oid, t.typtype, t.typbasetype, CASE WHEN d.typmod >= 0 THEN d.typmod ELSE dt.typtypmod END,
			d.isnotnull OR dt.typnotnull, d.depth + 1
		FROM down d JOIN pg_catalog.pg_type dt ON dt.oid = d.oid JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype
		WHERE d.typtype = 'd'
	)
	SELECT t.oid, t.typname, t.typtype, t.typarray, t.typnamespace, down.typmod, down.isnotnull
	FROM down JOIN pg_catalog.pg_type t ON t.oid = down.oid ORDER BY down.depth DESC LIMIT 1
) b
JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

// sqlUniques: $1 the relation. B-tree indexes that identify every row: unique, valid, over whole columns only.
// One row for each key column, the primary key's first.
const sqlUniques = `SELECT x.indexrelid, x.indisprimary, a.attname, a.attnotnull
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = i.relam
CROSS JOIN LATERAL pg_catalog.generate_series(0, x.indnkeyatts - 1) AS k (n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k.n]
WHERE x.indrelid = $1::oid AND m.amname = 'btree' AND x.indisunique AND x.indisvalid
	AND x.indpred IS NULL AND x.indexprs IS NULL
ORDER BY x.indisprimary DESC, x.indexrelid, k.n`

// sqlColumnUses: $1 the relation. Everything that looks at a column's values: what it is, its name, the column's number.
const sqlColumnUses = `SELECT CASE WHEN x.indisunique THEN 'unique index' ELSE 'index' END, i.relname, k.attnum
	FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
	CROSS JOIN LATERAL (
		SELECT pg_catalog.unnest(x.indkey) UNION
		SELECT d.refobjsubid::int2 FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = x.indexrelid
			AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = x.indrelid
	) AS k (attnum)
	WHERE x.indrelid = $1::oid AND k.attnum > 0
UNION
SELECT CASE o.contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'check' ELSE 'exclusion' END, o.conname, k.attnum
	FROM pg_catalog.pg_constraint o CROSS JOIN LATERAL pg_catalog.unnest(o.conkey) AS k (attnum)
	WHERE o.conrelid = $1::oid AND o.contype IN ('f', 'c', 'x')
UNION
SELECT 'foreign key', o.conname, k.attnum
	FROM pg_catalog.pg_constraint o CROSS JOIN LATERAL pg_catalog.unnest(o.confkey) AS k (attnum)
	WHERE o.confrelid = $1::oid AND o.contype = 'f'
UNION
SELECT 'generated column', g.attname, d.refobjsubid
	FROM pg_catalog.pg_attrdef e
	JOIN pg_catalog.pg_attribute g ON g.attrelid = e.adrelid AND g.attnum = e.adnum AND g.attgenerated <> ''
	JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = e.oid
		AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = e.adrelid
	WHERE e.adrelid = $1::oid AND d.refobjsubid > 0 AND d.refobjsubid <> e.adnum
ORDER BY 3, 1, 2`

// sqlFollowers: $1 the relation. What sees every row that is moved: triggers on update (bit 16 of tgtype) of the table or
// one of its partitions, and publications of logical replication.
const sqlFollowers = `SELECT DISTINCT 'trigger', g.tgname
	FROM pg_catalog.pg_trigger g
	WHERE NOT g.tgisinternal AND g.tgenabled NOT IN ('D', 'R') AND g.tgtype & 16 <> 0
		AND (g.tgrelid = $1::oid OR g.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid)))
UNION
SELECT DISTINCT 'publication', p.pubname
	FROM pg_catalog.pg_publication_tables p
	JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
	JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
	WHERE c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid))
ORDER BY 1, 2`
