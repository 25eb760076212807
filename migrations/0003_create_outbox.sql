-- Events that Kafka has not acknowledged. Ids are drawn while the mailing's row is locked, so their order holds within a mailing.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mailing_no bigint NOT NULL,
    shard integer NOT NULL,
    key text NOT NULL,
    payload text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX outbox_mailing_no_idx ON outbox (mailing_no);
