-- Where each projector goes on: moved in the transaction that writes what was read up to here.
CREATE TABLE projector_offsets (
    partition integer PRIMARY KEY,
    next_offset bigint NOT NULL,
    -- The newest status that was written from this partition, by its offset. A log that holds another one there is another log.
    seen_offset bigint,
    seen_message_id bigint,
    seen_at timestamptz,
    -- There were rows of this partition before its first batch, which may have come from another log.
    began_over boolean NOT NULL DEFAULT false
);
