-- Who may receive. The number is drawn once and stays when the client is deleted, so a message id never changes its meaning.
CREATE TABLE clients (
    client_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (client_no > 0 AND client_no < 8589934592),
    id uuid NOT NULL UNIQUE,
    phone_number bigint,
    mobile_operator_code smallint,
    tag text,
    time_zone text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT clients_erased_check CHECK (
        (deleted_at IS NULL AND phone_number IS NOT NULL AND mobile_operator_code IS NOT NULL AND time_zone IS NOT NULL)
        OR (deleted_at IS NOT NULL AND phone_number IS NULL AND mobile_operator_code IS NULL AND tag IS NULL AND time_zone IS NULL)
    )
);

-- A page is a range of client_no, so each filter is an index range scan.
CREATE INDEX clients_operator_code_client_no_idx ON clients (mobile_operator_code, client_no);
CREATE INDEX clients_tag_client_no_idx ON clients (tag, client_no);
CREATE INDEX clients_operator_code_tag_client_no_idx ON clients (mobile_operator_code, tag, client_no);
CREATE INDEX clients_phone_number_idx ON clients (phone_number);
