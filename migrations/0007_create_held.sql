-- Messages that wait for a pass: there is a row here exactly while the row in messages shows held.
CREATE TABLE held (
    mailing_no bigint NOT NULL,
    client_no bigint NOT NULL,
    round integer NOT NULL,
    reason text NOT NULL,
    -- Never null. What waits for a state and not for a time (paused) has the moment at which it was held.
    not_before timestamptz NOT NULL,
    -- The lane of its last record, as the held status told; 0: it told none.
    operator_code smallint NOT NULL,
    PRIMARY KEY (mailing_no, client_no)
);

-- What is due of a mailing.
CREATE INDEX held_mailing_no_not_before_idx ON held (mailing_no, not_before);
-- The earliest of each reason, for the API.
CREATE INDEX held_mailing_no_reason_not_before_idx ON held (mailing_no, reason, not_before);
