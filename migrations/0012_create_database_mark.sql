-- A count that only grows, one more before each record in Kafka that says how far this database is. Restored to an older
-- state it is below one that Kafka holds.
CREATE TABLE database_mark (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    mark bigint NOT NULL
) WITH (fillfactor = 50);

INSERT INTO database_mark (mark) VALUES (0);
