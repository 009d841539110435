-- Uploads: what a PC may send us, what it sent in sealed pieces, and until when.

CREATE TABLE uploads (
    site_id BYTEA NOT NULL,
    part_id BYTEA NOT NULL,
    command_id BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
    token_hash BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The attempt whose pieces count; none: nothing is kept.
    attempt BYTEA,
    -- Bytes that are set aside for the attempt; of a received upload its size.
    size BIGINT NOT NULL,
    sha256 BYTEA,
    received_at BIGINT,
    PRIMARY KEY (site_id, part_id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, part_id) REFERENCES parts (site_id, id) ON DELETE CASCADE,
    FOREIGN KEY (site_id, command_id) REFERENCES commands (site_id, id) ON DELETE CASCADE,
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
CREATE UNIQUE INDEX uploads_token ON uploads (token_hash);
CREATE INDEX uploads_command ON uploads (site_id, command_id);
CREATE INDEX uploads_enrollment ON uploads (site_id, enrollment_id);
CREATE INDEX uploads_held ON uploads (expires_at) WHERE attempt IS NOT NULL;

-- The bytes in sealed pieces of 1 MiB, under the attempt that brought them.
CREATE TABLE upload_pieces (
    site_id BYTEA NOT NULL,
    part_id BYTEA NOT NULL,
    attempt BYTEA NOT NULL,
    ordinal INTEGER NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (site_id, part_id, attempt, ordinal),
    FOREIGN KEY (site_id, part_id) REFERENCES uploads (site_id, part_id) ON DELETE CASCADE
);

-- The wall between sites.
ALTER TABLE uploads ENABLE ROW LEVEL SECURITY;
ALTER TABLE uploads FORCE ROW LEVEL SECURITY;
CREATE POLICY uploads_wall ON uploads
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE upload_pieces ENABLE ROW LEVEL SECURITY;
ALTER TABLE upload_pieces FORCE ROW LEVEL SECURITY;
CREATE POLICY upload_pieces_wall ON upload_pieces
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
