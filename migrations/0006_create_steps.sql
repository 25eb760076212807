-- What a message went through before the status that its row shows: attempts that failed, waits, holds. Keyed with the
-- coordinates of the status that told of it, so that a replay writes the same rows; they are the order, too.
CREATE TABLE steps (
    mailing_no bigint NOT NULL,
    client_no bigint NOT NULL,
    status_partition integer NOT NULL,
    status_offset bigint NOT NULL,
    round integer NOT NULL,
    -- Attempts so far. A wait that cost none has the number of the attempt before it.
    attempt integer NOT NULL,
    status text NOT NULL,
    reason text,
    code integer,
    latency_ms integer,
    not_before timestamptz,
    detail text,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (mailing_no, client_no, status_partition, status_offset)
);
