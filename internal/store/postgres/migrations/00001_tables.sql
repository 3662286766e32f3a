-- +goose Up
-- Times are microseconds since 1970 in UTC, 0 for "absent"; JSON is text. Names are compared byte by byte, as in SQLite,
-- whatever the database's own collation is. All of it lives in the schema that search_path names.

CREATE TABLE meta (
	name  TEXT COLLATE "C" PRIMARY KEY,
	value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE keys (
	id                 BYTEA PRIMARY KEY CHECK (length(id) = 16),
	name               TEXT COLLATE "C" NOT NULL UNIQUE,
	purpose            TEXT COLLATE "C" NOT NULL,
	algorithm          TEXT COLLATE "C" NOT NULL,
	suite              BIGINT NOT NULL,
	period             BIGINT NOT NULL, -- microseconds, as warn
	warn               BIGINT NOT NULL,
	max_operations     BIGINT NOT NULL,
	max_bytes          BIGINT NOT NULL,
	suspended_decrypts BOOLEAN NOT NULL,
	created            BIGINT NOT NULL,
	revision           BIGINT NOT NULL,
	mac                TEXT COLLATE "C" NOT NULL -- over the row and what belongs to it, see package kms
);

CREATE TABLE key_versions (
	key_id      BYTEA NOT NULL REFERENCES keys (id),
	number      BIGINT NOT NULL CHECK (number > 0),
	state       TEXT COLLATE "C" NOT NULL,
	prior_state TEXT COLLATE "C" NOT NULL,
	seq         BIGINT NOT NULL,
	created     BIGINT NOT NULL,
	activated   BIGINT NOT NULL,
	expires     BIGINT NOT NULL,
	destroy_at  BIGINT NOT NULL,
	destroyed   BIGINT NOT NULL,
	last_opened BIGINT NOT NULL,
	operations  BIGINT NOT NULL CHECK (operations >= 0),
	bytes       BIGINT NOT NULL CHECK (bytes >= 0),
	kek         TEXT COLLATE "C" NOT NULL,
	wrapped     BYTEA,
	reason      TEXT COLLATE "C" NOT NULL,
	actor       TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (key_id, number),
	CHECK (state <> 'destroyed' OR wrapped IS NULL) -- gone means gone
);

-- A key has one active version at most, whoever writes.
CREATE UNIQUE INDEX key_versions_active ON key_versions (key_id) WHERE state = 'active';

CREATE TABLE key_transitions (
	key_id     BYTEA NOT NULL REFERENCES keys (id),
	number     BIGINT NOT NULL,
	version    BIGINT NOT NULL,
	from_state TEXT COLLATE "C" NOT NULL,
	to_state   TEXT COLLATE "C" NOT NULL,
	at         BIGINT NOT NULL,
	actor      TEXT COLLATE "C" NOT NULL,
	reason     TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (key_id, number)
);

CREATE TABLE keks (
	id      TEXT COLLATE "C" PRIMARY KEY,
	purpose TEXT COLLATE "C" NOT NULL,
	version BIGINT NOT NULL,
	active  BOOLEAN NOT NULL,
	created BIGINT NOT NULL,
	UNIQUE (purpose, version)
);

CREATE UNIQUE INDEX keks_active ON keks (purpose) WHERE active;

CREATE TABLE kek_wrappings (
	kek_id    TEXT COLLATE "C" NOT NULL REFERENCES keks (id),
	number    BIGINT NOT NULL,
	master_id TEXT COLLATE "C" NOT NULL,
	url       TEXT COLLATE "C" NOT NULL,
	wrapped   BYTEA NOT NULL,
	PRIMARY KEY (kek_id, number)
);

CREATE TABLE principals (
	id       TEXT COLLATE "C" PRIMARY KEY,
	name     TEXT COLLATE "C" NOT NULL UNIQUE,
	role     TEXT COLLATE "C" NOT NULL,
	scope    TEXT COLLATE "C" NOT NULL, -- JSON list
	allow    TEXT COLLATE "C" NOT NULL, -- JSON list
	disabled BOOLEAN NOT NULL,
	created  BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	mac      TEXT COLLATE "C" NOT NULL -- over the row and what belongs to it, see package kms
);

CREATE TABLE tokens (
	id           TEXT COLLATE "C" PRIMARY KEY,
	principal_id TEXT COLLATE "C" NOT NULL REFERENCES principals (id),
	hash         BYTEA NOT NULL CHECK (length(hash) = 32),
	created      BIGINT NOT NULL,
	expires      BIGINT NOT NULL,
	revoked      BIGINT NOT NULL,
	mac          TEXT COLLATE "C" NOT NULL -- over the row and what belongs to it, see package kms
);

CREATE INDEX tokens_of ON tokens (principal_id);

CREATE TABLE audit_shards (
	shard       BIGINT PRIMARY KEY,
	epoch       BIGINT NOT NULL,
	node        TEXT COLLATE "C" NOT NULL,
	lease_until BIGINT NOT NULL
);

-- One row per group commit; the last one of a shard is its head. place is shard * 2^44 + index of the first event. Lines are
-- stored beside the row as they are: compressing them would cost the hot path more than it saves.
CREATE TABLE audit_segments (
	place      BIGINT PRIMARY KEY,
	seq        BIGINT NOT NULL,
	epoch      BIGINT NOT NULL,
	count      BIGINT NOT NULL CHECK (count > 0),
	first_time BIGINT NOT NULL,
	last_time  BIGINT NOT NULL,
	mask       BIGINT NOT NULL,
	root       BYTEA NOT NULL,
	edge       BYTEA NOT NULL,
	nonce      TEXT COLLATE "C" NOT NULL,
	lines      BYTEA NOT NULL
);

ALTER TABLE audit_segments ALTER COLUMN lines SET STORAGE EXTERNAL;

-- Everything that decides whether a segment may hold an answer, without its lines.
CREATE INDEX audit_times ON audit_segments (first_time, place, last_time, mask, count);

CREATE TABLE audit_checkpoints (
	sequence BIGINT PRIMARY KEY,
	time     BIGINT NOT NULL,
	events   BIGINT NOT NULL,
	note     TEXT COLLATE "C" NOT NULL
);

CREATE TABLE audit_keys (
	id       BIGINT PRIMARY KEY CHECK (id = 1),
	verifier TEXT COLLATE "C" NOT NULL,
	signing  BYTEA NOT NULL,
	mac      BYTEA NOT NULL,
	created  BIGINT NOT NULL
);

CREATE TABLE jobs (
	id           TEXT COLLATE "C" PRIMARY KEY,
	kind         TEXT COLLATE "C" NOT NULL,
	subject      TEXT COLLATE "C" NOT NULL,
	unique_key   TEXT COLLATE "C" NOT NULL,
	args         BYTEA,
	actor        TEXT COLLATE "C" NOT NULL,
	priority     BIGINT NOT NULL,
	state        TEXT COLLATE "C" NOT NULL,
	control      TEXT COLLATE "C" NOT NULL,
	cursor       BYTEA,
	progress     BYTEA,
	done         BIGINT NOT NULL,
	total        BIGINT NOT NULL,
	error        TEXT COLLATE "C" NOT NULL,
	epoch        BIGINT NOT NULL,
	owner        TEXT COLLATE "C" NOT NULL,
	lease_until  BIGINT NOT NULL,
	attempts     BIGINT NOT NULL,
	created      BIGINT NOT NULL,
	started      BIGINT NOT NULL,
	finished     BIGINT NOT NULL,
	next_attempt BIGINT NOT NULL
);

CREATE UNIQUE INDEX job_unique ON jobs (unique_key) WHERE unique_key <> '' AND state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_unfinished ON jobs (state, lease_until, next_attempt) WHERE state IN ('queued', 'running');

CREATE TABLE job_failures (
	job_id TEXT COLLATE "C" NOT NULL REFERENCES jobs (id),
	item   TEXT COLLATE "C" NOT NULL,
	field  TEXT COLLATE "C" NOT NULL,
	reason TEXT COLLATE "C" NOT NULL,
	at     BIGINT NOT NULL,
	retry  BYTEA,
	PRIMARY KEY (job_id, item, field)
);

CREATE TABLE datasets (
	name        TEXT COLLATE "C" PRIMARY KEY,
	id          TEXT COLLATE "C" NOT NULL UNIQUE,
	address     TEXT COLLATE "C" NOT NULL,
	dsn         BYTEA,
	dsn_env     TEXT COLLATE "C" NOT NULL,
	table_name  TEXT COLLATE "C" NOT NULL,
	schema_name TEXT COLLATE "C" NOT NULL,
	relation    TEXT COLLATE "C" NOT NULL,
	pk          TEXT COLLATE "C" NOT NULL, -- JSON list
	columns     TEXT COLLATE "C" NOT NULL, -- JSON list
	context     TEXT COLLATE "C" NOT NULL, -- JSON object
	unbound     BOOLEAN NOT NULL,
	created     BIGINT NOT NULL,
	revision    BIGINT NOT NULL
);
