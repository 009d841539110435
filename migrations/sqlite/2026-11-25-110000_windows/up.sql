-- What the Windows dialect needs: sessions that outlive a restart, accounts for many devices, what is set already.

-- What a protocol remembers between two requests of an identity: its account, open sessions. Sealed, opaque here.
CREATE TABLE protocol_states (
    site_id BLOB NOT NULL,
    identity_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    version BIGINT NOT NULL,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, identity_id, key),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, identity_id) REFERENCES identities (site_id, id)
);
CREATE INDEX protocol_states_touched ON protocol_states (touched_at);

-- A name and a password with which several devices may enroll.
CREATE TABLE enrollment_accounts (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    platform TEXT NOT NULL,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    person_id BLOB,
    cap INTEGER NOT NULL,
    ownership TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, person_id) REFERENCES people (site_id, id)
);
CREATE UNIQUE INDEX enrollment_accounts_secret ON enrollment_accounts (secret_hash);

-- The invitations that such an account made: one for each device that came with it, by what the device claims to be.
CREATE TABLE enrollment_account_uses (
    site_id BLOB NOT NULL,
    account_id BLOB NOT NULL,
    invitation_id BLOB NOT NULL,
    claim TEXT NOT NULL,
    PRIMARY KEY (site_id, account_id, invitation_id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, account_id) REFERENCES enrollment_accounts (site_id, id),
    FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id)
);
CREATE INDEX enrollment_account_uses_claim ON enrollment_account_uses (site_id, account_id, claim);

-- What an enrollment confirmed last for a setting: the digest of its value. What is set already is not sent again.
CREATE TABLE applied_settings (
    site_id BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    setting TEXT NOT NULL,
    digest BLOB NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, enrollment_id, setting),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
