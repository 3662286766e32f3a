-- +goose Up
-- Who made a principal and who issued a token, by the principal's id: two identities of one person are one person. Empty for rows
-- of an older release.
ALTER TABLE principals ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN issued_by TEXT NOT NULL DEFAULT '';
