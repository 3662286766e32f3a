-- +goose Up
-- Times are microseconds since 1970 in UTC, 0 for "absent"; truth values are 0 and 1; JSON is text.
-- 0x4b545231 is "KTR1": it tells keyturn's file from any other SQLite database.
PRAGMA application_id = 1263817265;

CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
	id                 BLOB PRIMARY KEY CHECK (length(id) = 16),
	name               TEXT NOT NULL UNIQUE,
	purpose            TEXT NOT NULL,
	algorithm          TEXT NOT NULL,
	suite              INTEGER NOT NULL,
	period             INTEGER NOT NULL, -- microseconds, as warn
	warn               INTEGER NOT NULL,
	max_operations     INTEGER NOT NULL,
	max_bytes          INTEGER NOT NULL,
	suspended_decrypts INTEGER NOT NULL CHECK (suspended_decrypts IN (0, 1)),
	created            INTEGER NOT NULL,
	revision           INTEGER NOT NULL,
	mac                TEXT NOT NULL -- over the row and what belongs to it, see package kms
) STRICT;

CREATE TABLE key_versions (
	key_id      BLOB NOT NULL REFERENCES keys (id),
	number      INTEGER NOT NULL CHECK (number > 0),
	state       TEXT NOT NULL,
	prior_state TEXT NOT NULL,
	seq         INTEGER NOT NULL,
	created     INTEGER NOT NULL,
	activated   INTEGER NOT NULL,
	expires     INTEGER NOT NULL,
	destroy_at  INTEGER NOT NULL,
	destroyed   INTEGER NOT NULL,
	last_opened INTEGER NOT NULL,
	operations  INTEGER NOT NULL CHECK (operations >= 0),
	bytes       INTEGER NOT NULL CHECK (bytes >= 0),
	kek         TEXT NOT NULL,
	wrapped     BLOB,
	reason      TEXT NOT NULL,
	actor       TEXT NOT NULL,
	PRIMARY KEY (key_id, number),
	CHECK (state <> 'destroyed' OR wrapped IS NULL) -- gone means gone
) STRICT, WITHOUT ROWID;

-- A key has one active version at most, whoever writes.
CREATE UNIQUE INDEX key_versions_active ON key_versions (key_id) WHERE state = 'active';

CREATE TABLE key_transitions (
	key_id     BLOB NOT NULL REFERENCES keys (id),
	number     INTEGER NOT NULL,
	version    INTEGER NOT NULL,
	from_state TEXT NOT NULL,
	to_state   TEXT NOT NULL,
	at         INTEGER NOT NULL,
	actor      TEXT NOT NULL,
	reason     TEXT NOT NULL,
	PRIMARY KEY (key_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE keks (
	id      TEXT PRIMARY KEY,
	purpose TEXT NOT NULL,
	version INTEGER NOT NULL,
	active  INTEGER NOT NULL CHECK (active IN (0, 1)),
	created INTEGER NOT NULL,
	UNIQUE (purpose, version)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX keks_active ON keks (purpose) WHERE active = 1;

CREATE TABLE kek_wrappings (
	kek_id    TEXT NOT NULL REFERENCES keks (id),
	number    INTEGER NOT NULL,
	master_id TEXT NOT NULL,
	url       TEXT NOT NULL,
	wrapped   BLOB NOT NULL,
	PRIMARY KEY (kek_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE principals (
	id       TEXT PRIMARY KEY,
	name     TEXT NOT NULL UNIQUE,
	role     TEXT NOT NULL,
	scope    TEXT NOT NULL, -- JSON list
	allow    TEXT NOT NULL, -- JSON list
	disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
	created  INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	mac      TEXT NOT NULL -- over the row and what belongs to it, see package kms
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
	id           TEXT PRIMARY KEY,
	principal_id TEXT NOT NULL REFERENCES principals (id),
	hash         BLOB NOT NULL CHECK (length(hash) = 32),
	created      INTEGER NOT NULL,
	expires      INTEGER NOT NULL,
	revoked      INTEGER NOT NULL,
	mac          TEXT NOT NULL -- over the row and what belongs to it, see package kms
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_of ON tokens (principal_id);

CREATE TABLE audit_shards (
	shard       INTEGER PRIMARY KEY,
	epoch       INTEGER NOT NULL,
	node        TEXT NOT NULL,
	lease_until INTEGER NOT NULL
) STRICT;

-- One row per group commit; the last one of a shard is its head. place is shard * 2^44 + index of the first event. A table
-- with a rowid and not WITHOUT ROWID: appending long rows to the latter was three times as slow.
CREATE TABLE audit_segments (
	place      INTEGER PRIMARY KEY,
	seq        INTEGER NOT NULL,
	epoch      INTEGER NOT NULL,
	count      INTEGER NOT NULL CHECK (count > 0),
	first_time INTEGER NOT NULL,
	last_time  INTEGER NOT NULL,
	mask       INTEGER NOT NULL,
	root       BLOB NOT NULL,
	edge       BLOB NOT NULL,
	nonce      TEXT NOT NULL,
	lines      BLOB NOT NULL
) STRICT;

-- Everything that decides whether a segment may hold an answer, without its lines.
CREATE INDEX audit_times ON audit_segments (first_time, place, last_time, mask, count);

CREATE TABLE audit_checkpoints (
	sequence INTEGER PRIMARY KEY,
	time     INTEGER NOT NULL,
	events   INTEGER NOT NULL,
	note     TEXT NOT NULL
) STRICT;

CREATE TABLE audit_keys (
	id       INTEGER PRIMARY KEY CHECK (id = 1),
	verifier TEXT NOT NULL,
	signing  BLOB NOT NULL,
	mac      BLOB NOT NULL,
	created  INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
	id           TEXT PRIMARY KEY,
	kind         TEXT NOT NULL,
	subject      TEXT NOT NULL,
	unique_key   TEXT NOT NULL,
	args         BLOB,
	actor        TEXT NOT NULL,
	priority     INTEGER NOT NULL,
	state        TEXT NOT NULL,
	control      TEXT NOT NULL,
	cursor       BLOB,
	progress     BLOB,
	done         INTEGER NOT NULL,
	total        INTEGER NOT NULL,
	error        TEXT NOT NULL,
	epoch        INTEGER NOT NULL,
	owner        TEXT NOT NULL,
	lease_until  INTEGER NOT NULL,
	attempts     INTEGER NOT NULL,
	created      INTEGER NOT NULL,
	started      INTEGER NOT NULL,
	finished     INTEGER NOT NULL,
	next_attempt INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX job_unique ON jobs (unique_key) WHERE unique_key <> '' AND state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_unfinished ON jobs (state, lease_until, next_attempt) WHERE state IN ('queued', 'running');

CREATE TABLE job_failures (
	job_id TEXT NOT NULL REFERENCES jobs (id),
	item   TEXT NOT NULL,
	field  TEXT NOT NULL,
	reason TEXT NOT NULL,
	at     INTEGER NOT NULL,
	retry  BLOB,
	PRIMARY KEY (job_id, item, field)
) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
	name        TEXT PRIMARY KEY,
	id          TEXT NOT NULL UNIQUE,
	address     TEXT NOT NULL,
	dsn         BLOB,
	dsn_env     TEXT NOT NULL,
	table_name  TEXT NOT NULL,
	schema_name TEXT NOT NULL,
	relation    TEXT NOT NULL,
	pk          TEXT NOT NULL, -- JSON list
	columns     TEXT NOT NULL, -- JSON list
	context     TEXT NOT NULL, -- JSON object
	unbound     INTEGER NOT NULL CHECK (unbound IN (0, 1)),
	created     INTEGER NOT NULL,
	revision    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
