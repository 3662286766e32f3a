-- +goose Up
CREATE TABLE incidents (
	id            TEXT COLLATE "C" PRIMARY KEY,
	type          TEXT COLLATE "C" NOT NULL,
	severity      TEXT COLLATE "C" NOT NULL,
	state         TEXT COLLATE "C" NOT NULL,
	reason        TEXT COLLATE "C" NOT NULL,
	details       TEXT COLLATE "C" NOT NULL,
	emergency     BOOLEAN NOT NULL,
	job           TEXT COLLATE "C" NOT NULL,
	versions      TEXT COLLATE "C" NOT NULL, -- JSON list
	targets       TEXT COLLATE "C" NOT NULL, -- JSON list
	opened        BIGINT NOT NULL,
	opened_by     TEXT COLLATE "C" NOT NULL,
	closed        BIGINT NOT NULL,
	closed_by     TEXT COLLATE "C" NOT NULL,
	closed_reason TEXT COLLATE "C" NOT NULL,
	entries       BIGINT NOT NULL,
	revision      BIGINT NOT NULL,
	mac           TEXT COLLATE "C" NOT NULL -- over the row, see package kms
);

CREATE INDEX incidents_state ON incidents (state, id);

CREATE TABLE incident_entries (
	incident_id TEXT COLLATE "C" NOT NULL REFERENCES incidents (id),
	number      BIGINT NOT NULL CHECK (number > 0),
	kind        TEXT COLLATE "C" NOT NULL,
	at          BIGINT NOT NULL,
	by_name     TEXT COLLATE "C" NOT NULL,
	text        TEXT COLLATE "C" NOT NULL,
	data        BYTEA,
	mac         TEXT COLLATE "C" NOT NULL, -- over the row, see package kms
	PRIMARY KEY (incident_id, number)
);
