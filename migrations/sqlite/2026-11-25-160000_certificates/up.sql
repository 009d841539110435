-- Certificates that devices use elsewhere (Wi-Fi, VPN). They are kept apart from identities, so that nothing that asks
-- who a device is can find them.

ALTER TABLE challenges ADD COLUMN requested TEXT;

CREATE TABLE certificates (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    authority_id BLOB NOT NULL,
    serial TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    certificate BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    challenge_id BLOB NOT NULL,
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
