-- +goose Up
-- Standing orders: when which kind of job is due. next_run is moved on by compare-and-swap.
CREATE TABLE schedules (
	name     TEXT PRIMARY KEY,
	kind     TEXT NOT NULL,
	args     BLOB,
	cron     TEXT NOT NULL,
	zone     TEXT NOT NULL,
	origin   TEXT NOT NULL,
	next_run INTEGER NOT NULL,
	last_run INTEGER NOT NULL,
	last_job TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How many chunks of a job may fail in a row; 0: what the runner allows.
ALTER TABLE jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;

CREATE TABLE policies (
	name        TEXT PRIMARY KEY,
	key         TEXT NOT NULL,
	purpose     TEXT NOT NULL,
	environment TEXT NOT NULL,
	rule        TEXT NOT NULL, -- JSON object
	created     INTEGER NOT NULL,
	actor       TEXT NOT NULL,
	mac         TEXT NOT NULL, -- over the row, see package kms
	UNIQUE (key, purpose, environment)
) STRICT, WITHOUT ROWID;

-- 1: the policies say how long a version protects, not the row.
ALTER TABLE keys ADD COLUMN by_policy INTEGER NOT NULL DEFAULT 0 CHECK (by_policy IN (0, 1));

-- What a version sealed of our own when it was made, opened again by every self-check. NULL for versions older than this.
ALTER TABLE key_versions ADD COLUMN sample BLOB;

-- Who asked that a version be destroyed whatever depends on it, and when; see keys.Force.
ALTER TABLE key_versions ADD COLUMN force_by TEXT NOT NULL DEFAULT '';
ALTER TABLE key_versions ADD COLUMN force_at INTEGER NOT NULL DEFAULT 0;

-- One row for each time that a version followed another.
CREATE TABLE rotations (
	key_id       BLOB NOT NULL REFERENCES keys (id),
	new_version  INTEGER NOT NULL,
	old_version  INTEGER NOT NULL,
	reason       TEXT NOT NULL,
	actor        TEXT NOT NULL,
	source       TEXT NOT NULL,
	incident     TEXT NOT NULL,
	at           INTEGER NOT NULL,
	duration     INTEGER NOT NULL, -- microseconds
	self_check   TEXT NOT NULL,
	rows_moved   INTEGER NOT NULL,
	PRIMARY KEY (key_id, new_version)
) STRICT, WITHOUT ROWID;

CREATE INDEX rotations_at ON rotations (at, key_id, new_version);
