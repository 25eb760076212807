-- A mirror of planning-progress for the API; the records are the truth.
CREATE TABLE mailing_progress (
    mailing_no bigint PRIMARY KEY,
    planned bigint NOT NULL DEFAULT 0,
    emitted bigint NOT NULL DEFAULT 0,
    -- The part of emitted that lies in rounds above the first.
    again bigint NOT NULL DEFAULT 0,
    complete boolean NOT NULL DEFAULT false,
    waiting_for text,
    audience_estimate bigint
) WITH (fillfactor = 50);
