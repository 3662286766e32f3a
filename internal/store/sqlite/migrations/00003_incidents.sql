-- +goose Up
CREATE TABLE incidents (
	id            TEXT PRIMARY KEY,
	type          TEXT NOT NULL,
	severity      TEXT NOT NULL,
	state         TEXT NOT NULL,
	reason        TEXT NOT NULL,
	details       TEXT NOT NULL,
	emergency     INTEGER NOT NULL CHECK (emergency IN (0, 1)),
	job           TEXT NOT NULL,
	versions      TEXT NOT NULL, -- JSON list
	targets       TEXT NOT NULL, -- JSON list
	opened        INTEGER NOT NULL,
	opened_by     TEXT NOT NULL,
	closed        INTEGER NOT NULL,
	closed_by     TEXT NOT NULL,
	closed_reason TEXT NOT NULL,
	entries       INTEGER NOT NULL,
	revision      INTEGER NOT NULL,
	mac           TEXT NOT NULL -- over the row, see package kms
) STRICT;

CREATE INDEX incidents_state ON incidents (state, id);

CREATE TABLE incident_entries (
	incident_id TEXT NOT NULL REFERENCES incidents (id),
	number      INTEGER NOT NULL CHECK (number > 0),
	kind        TEXT NOT NULL,
	at          INTEGER NOT NULL,
	by_name     TEXT NOT NULL,
	text        TEXT NOT NULL,
	data        BLOB,
	mac         TEXT NOT NULL, -- over the row, see package kms
	PRIMARY KEY (incident_id, number)
) STRICT;
