-- What became of each message. No foreign keys: a fact from the log is never refused. No index on status: it would end
-- HOT updates.
CREATE TABLE messages (
    mailing_no bigint NOT NULL,
    client_no bigint NOT NULL,
    client_id uuid NOT NULL,
    status text NOT NULL,
    reason text,
    round integer NOT NULL,
    settled_round integer NOT NULL,
    attempts integer NOT NULL,
    code integer,
    latency_ms integer,
    not_before timestamptz,
    planned_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (mailing_no, client_no)
) WITH (fillfactor = 70);

-- Attempts that failed, keyed with the coordinates of the status that told of them: a replay writes the same rows.
CREATE TABLE attempts (
    mailing_no bigint NOT NULL,
    client_no bigint NOT NULL,
    status_partition integer NOT NULL,
    status_offset bigint NOT NULL,
    round integer NOT NULL,
    attempt integer NOT NULL,
    reason text,
    code integer,
    latency_ms integer,
    detail text,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (mailing_no, client_no, status_partition, status_offset)
);

-- Rows by status, split by status partition so that two projectors never update one row.
CREATE TABLE mailing_counts (
    mailing_no bigint NOT NULL,
    partition integer NOT NULL,
    status text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (mailing_no, partition, status)
) WITH (fillfactor = 50);

-- Σ settled rounds: what a mailing has emitted and got back.
CREATE TABLE mailing_settled_rounds (
    mailing_no bigint NOT NULL,
    partition integer NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (mailing_no, partition)
) WITH (fillfactor = 50);

-- Where each projector goes on: moved in the transaction that writes what was read up to here.
CREATE TABLE projector_offsets (
    partition integer PRIMARY KEY,
    next_offset bigint NOT NULL
);
