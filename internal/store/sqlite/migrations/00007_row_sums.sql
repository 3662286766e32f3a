-- +goose Up
-- What the rows that carry a MAC add up to, sealed, and how often each sum was written: so that a row that is put back to its own
-- past, or taken away, is missed. sums_epoch is the epoch at which a process that keeps the sums took the shard: one of an
-- older release takes it without saying so.
CREATE TABLE row_sums (
	bucket INTEGER PRIMARY KEY CHECK (bucket >= 0),
	seq    INTEGER NOT NULL CHECK (seq > 0),
	sealed BLOB NOT NULL
) STRICT;

ALTER TABLE audit_shards ADD COLUMN sums_epoch INTEGER NOT NULL DEFAULT 0;
