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
    -- Counted through all rounds.
    attempts integer NOT NULL,
    code integer,
    latency_ms integer,
    not_before timestamptz,
    planned_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (mailing_no, client_no)
) WITH (fillfactor = 70);
