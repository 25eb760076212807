-- Rows of held by reason, split likewise.
CREATE TABLE held_counts (
    mailing_no bigint NOT NULL,
    partition integer NOT NULL,
    reason text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (mailing_no, partition, reason)
) WITH (fillfactor = 50);
