-- Certificates that devices use elsewhere (Wi-Fi, VPN). They are kept apart from identities, so that nothing that asks
-- who a device is can find them.

ALTER TABLE challenges ADD COLUMN requested TEXT;

CREATE TABLE certificates (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    authority_id BYTEA NOT NULL,
    serial TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
    challenge_id BYTEA NOT NULL,
    requested TEXT NOT NULL,
    common_name TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    state TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, authority_id) REFERENCES authorities (site_id, id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id),
    FOREIGN KEY (site_id, challenge_id) REFERENCES challenges (site_id, id)
);
CREATE UNIQUE INDEX certificates_serial ON certificates (site_id, authority_id, serial);
CREATE UNIQUE INDEX certificates_challenge ON certificates (site_id, challenge_id);
CREATE INDEX certificates_enrollment ON certificates (site_id, enrollment_id);
CREATE INDEX certificates_revoked ON certificates (site_id, authority_id) WHERE revoked_at IS NOT NULL;

-- The wall between sites.
ALTER TABLE certificates ENABLE ROW LEVEL SECURITY;
ALTER TABLE certificates FORCE ROW LEVEL SECURITY;
CREATE POLICY certificates_wall ON certificates
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
