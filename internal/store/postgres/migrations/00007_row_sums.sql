-- +goose Up
-- What the rows that carry a MAC add up to, sealed, and how often each sum was written: so that a row that is put back to its own
-- past, or taken away, is missed. sums_epoch is the epoch at which a process that keeps the sums took the shard: one of an
-- older release takes it without saying so. Room is left on the pages, so that a change of one sum touches no index, and changes
-- of two sums don't disturb each other.
CREATE TABLE row_sums (
	bucket BIGINT PRIMARY KEY CHECK (bucket >= 0),
	seq    BIGINT NOT NULL CHECK (seq > 0),
	sealed BYTEA NOT NULL
) WITH (fillfactor = 25);

ALTER TABLE audit_shards ADD COLUMN sums_epoch BIGINT NOT NULL DEFAULT 0;
