-- What a mailing has emitted and got back.
CREATE TABLE mailing_settled_rounds (
    mailing_no bigint NOT NULL,
    partition integer NOT NULL,
    -- Σ settled_round.
    n bigint NOT NULL,
    -- Σ max(settled_round - 1, 0): the same without the first rounds.
    again bigint NOT NULL,
    PRIMARY KEY (mailing_no, partition)
) WITH (fillfactor = 50);
