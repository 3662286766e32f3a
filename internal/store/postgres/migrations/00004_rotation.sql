-- +goose Up
-- Standing orders: when which kind of job is due. next_run is moved on by compare-and-swap.
CREATE TABLE schedules (
	name     TEXT COLLATE "C" PRIMARY KEY,
	kind     TEXT COLLATE "C" NOT NULL,
	args     BYTEA,
	cron     TEXT COLLATE "C" NOT NULL,
	zone     TEXT COLLATE "C" NOT NULL,
	origin   TEXT COLLATE "C" NOT NULL,
	next_run BIGINT NOT NULL,
	last_run BIGINT NOT NULL,
	last_job TEXT COLLATE "C" NOT NULL
);

-- How many chunks of a job may fail in a row; 0: what the runner allows.
ALTER TABLE jobs ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;

CREATE TABLE policies (
	name        TEXT COLLATE "C" PRIMARY KEY,
	key         TEXT COLLATE "C" NOT NULL,
	purpose     TEXT COLLATE "C" NOT NULL,
	environment TEXT COLLATE "C" NOT NULL,
	rule        TEXT COLLATE "C" NOT NULL, -- JSON object
	created     BIGINT NOT NULL,
	actor       TEXT COLLATE "C" NOT NULL,
	mac         TEXT COLLATE "C" NOT NULL, -- over the row, see package kms
	UNIQUE (key, purpose, environment)
);

-- TRUE: the policies say how long a version protects, not the row.
ALTER TABLE keys ADD COLUMN by_policy BOOLEAN NOT NULL DEFAULT FALSE;

-- What a version sealed of our own when it was made, opened again by every self-check. NULL for versions older than this.
ALTER TABLE key_versions ADD COLUMN sample BYTEA;

-- Who asked that a version be destroyed whatever depends on it, and when; see keys.Force.
ALTER TABLE key_versions ADD COLUMN force_by TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE key_versions ADD COLUMN force_at BIGINT NOT NULL DEFAULT 0;

-- One row for each time that a version followed another.
CREATE TABLE rotations (
	key_id       BYTEA NOT NULL REFERENCES keys (id),
	new_version  BIGINT NOT NULL,
	old_version  BIGINT NOT NULL,
	reason       TEXT COLLATE "C" NOT NULL,
	actor        TEXT COLLATE "C" NOT NULL,
	source       TEXT COLLATE "C" NOT NULL,
	incident     TEXT COLLATE "C" NOT NULL,
	at           BIGINT NOT NULL,
	duration     BIGINT NOT NULL, -- microseconds
	self_check   TEXT COLLATE "C" NOT NULL,
	rows_moved   BIGINT NOT NULL,
	PRIMARY KEY (key_id, new_version)
);

CREATE INDEX rotations_at ON rotations (at, key_id, new_version);
