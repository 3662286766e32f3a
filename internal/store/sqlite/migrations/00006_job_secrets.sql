-- +goose Up
-- What an unfinished job needs and nobody may read, sealed under a key-encryption key. Saving a final state deletes it.
CREATE TABLE job_secrets (
	job_id TEXT PRIMARY KEY REFERENCES jobs (id),
	sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
