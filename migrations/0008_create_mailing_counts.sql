-- Rows of messages by status, split by status partition so that two projectors never update one row.
CREATE TABLE mailing_counts (
    mailing_no bigint NOT NULL,
    partition integer NOT NULL,
    status text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (mailing_no, partition, status)
) WITH (fillfactor = 50);
