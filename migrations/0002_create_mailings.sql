-- What callers asked for. The row is the truth; its events are wake-ups.
CREATE TABLE mailings (
    mailing_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (mailing_no > 0 AND mailing_no < 1073741824),
    id uuid NOT NULL UNIQUE,
    shard integer NOT NULL,
    version bigint NOT NULL,
    text text NOT NULL,
    operator_codes smallint[] NOT NULL,
    tags text[] NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('scheduled', 'running', 'paused', 'finished', 'cancelled')),
    -- Why Herald itself paused it.
    state_reason text,
    delivery text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT mailings_period_check CHECK (ends_at > starts_at)
);

-- The scheduler reads the live mailings of a shard many times a second.
CREATE INDEX mailings_live_idx ON mailings (shard, mailing_no) WHERE finished_at IS NULL;
