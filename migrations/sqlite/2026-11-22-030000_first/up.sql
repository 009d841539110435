-- The first schema. The same tables, columns and rules as migrations/postgres; a test compares them.
-- Ids are 16 bytes, times are milliseconds since 1970 (UTC), words are text.

-- A customer of the server; a hard wall.
CREATE TABLE sites (
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

-- Server-wide values; opaque here.
CREATE TABLE server_settings (
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (key)
);

-- A site's values; opaque here.
CREATE TABLE site_settings (
    site_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (site_id, key),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- Device CAs; the id stands in URLs, so it is unique over the server.
CREATE TABLE authorities (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    certificate BLOB NOT NULL,
    key BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX authorities_id ON authorities (id);

-- Who uses devices; account in lower case.
CREATE TABLE people (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    account TEXT NOT NULL,
    name TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX people_account ON people (site_id, account);

-- The physical thing. An unproven claim (claims_device_id) never shares the proven row.
CREATE TABLE devices (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    platform TEXT NOT NULL,
    hardware_id TEXT NOT NULL,
    claims_device_id BLOB,
    serial TEXT,
    product TEXT,
    model TEXT,
    name TEXT,
    os_version TEXT,
    os_build TEXT,
    supervised BOOLEAN,
    ownership TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, claims_device_id) REFERENCES devices (site_id, id)
);
CREATE UNIQUE INDEX devices_proven_hardware ON devices (site_id, platform, hardware_id) WHERE claims_device_id IS NULL;
CREATE INDEX devices_claims ON devices (site_id, claims_device_id) WHERE claims_device_id IS NOT NULL;

-- What a person holds.
CREATE TABLE invitations (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    platform TEXT NOT NULL,
    person_id BLOB,
    device_id BLOB,
    code_hash BLOB NOT NULL,
    short_hash BLOB,
    attempts INTEGER NOT NULL,
    attempt_cap INTEGER NOT NULL,
    test_only BOOLEAN NOT NULL,
    unsigned BOOLEAN NOT NULL,
    ownership TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    closed_at BIGINT,
    enrollment_id BLOB,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, person_id) REFERENCES people (site_id, id),
    FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
CREATE UNIQUE INDEX invitations_code ON invitations (code_hash);
CREATE UNIQUE INDEX invitations_short ON invitations (short_hash);

-- One attempt.
CREATE TABLE challenges (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    secret_hash BLOB NOT NULL,
    purpose TEXT NOT NULL,
    invitation_id BLOB,
    enrollment_id BLOB,
    state TEXT NOT NULL,
    csr_hash BLOB,
    identity_id BLOB,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id),
    FOREIGN KEY (site_id, identity_id) REFERENCES identities (site_id, id)
);
CREATE UNIQUE INDEX challenges_secret ON challenges (secret_hash);
CREATE INDEX challenges_invitation ON challenges (site_id, invitation_id) WHERE invitation_id IS NOT NULL;

-- Device certificates.
CREATE TABLE identities (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    authority_id BLOB NOT NULL,
    serial TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    key_hash BLOB NOT NULL,
    certificate BLOB NOT NULL,
    common_name TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    state TEXT NOT NULL,
    challenge_id BLOB,
    invitation_id BLOB,
    enrollment_id BLOB,
    issued_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, authority_id) REFERENCES authorities (site_id, id),
    FOREIGN KEY (site_id, challenge_id) REFERENCES challenges (site_id, id),
    FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
CREATE UNIQUE INDEX identities_fingerprint ON identities (fingerprint);
CREATE UNIQUE INDEX identities_serial ON identities (site_id, authority_id, serial);
CREATE INDEX identities_invitation ON identities (site_id, invitation_id) WHERE invitation_id IS NOT NULL;
CREATE INDEX identities_enrollment ON identities (site_id, enrollment_id) WHERE enrollment_id IS NOT NULL;
CREATE INDEX identities_revoked ON identities (site_id, authority_id) WHERE revoked_at IS NOT NULL;

-- One period of trust. `newest` marks a device's latest.
CREATE TABLE enrollments (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    device_id BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    platform TEXT NOT NULL,
    state TEXT NOT NULL,
    user_enrollment BOOLEAN NOT NULL,
    invitation_id BLOB,
    person_id BLOB,
    identity_id BLOB NOT NULL,
    staged_identity_id BLOB,
    topic TEXT,
    test_only BOOLEAN NOT NULL,
    awaiting_configuration BOOLEAN NOT NULL,
    started_at BIGINT NOT NULL,
    activated_at BIGINT,
    ended_at BIGINT,
    end_reason TEXT,
    last_seen_at BIGINT,
    newest BOOLEAN NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id),
    FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id),
    FOREIGN KEY (site_id, person_id) REFERENCES people (site_id, id),
    FOREIGN KEY (site_id, identity_id) REFERENCES identities (site_id, id),
    FOREIGN KEY (site_id, staged_identity_id) REFERENCES identities (site_id, id)
);
CREATE UNIQUE INDEX enrollments_epoch ON enrollments (site_id, device_id, epoch);
CREATE UNIQUE INDEX enrollments_one_living ON enrollments (site_id, device_id) WHERE state IN ('pending', 'active');

-- Streams of commands inside an enrollment.
CREATE TABLE channels (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    kind TEXT NOT NULL,
    user_key TEXT NOT NULL,
    user_name TEXT,
    enabled BOOLEAN NOT NULL,
    push_token BLOB,
    push_magic BLOB,
    push_dead BOOLEAN NOT NULL,
    last_seq BIGINT NOT NULL,
    token_updates INTEGER NOT NULL,
    last_was_not_now BOOLEAN NOT NULL,
    wake_due_at BIGINT,
    wake_attempts INTEGER NOT NULL,
    woken_at BIGINT,
    wake_note TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
CREATE UNIQUE INDEX channels_user ON channels (site_id, enrollment_id, kind, user_key);
CREATE INDEX channels_wake_due ON channels (wake_due_at) WHERE wake_due_at IS NOT NULL;

-- Kept secrets of an enrollment, sealed.
CREATE TABLE escrow (
    site_id BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, enrollment_id, field),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);

-- What a device said about itself; JSON.
CREATE TABLE facts (
    site_id BLOB NOT NULL,
    device_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, device_id, key),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id)
);

-- One admin action on many devices.
CREATE TABLE jobs (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    intent BLOB NOT NULL,
    targets BLOB NOT NULL,
    done INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX jobs_open ON jobs (id) WHERE finished_at IS NULL;

-- The queue. pending_lane is the lane's rank until the state is terminal, then NULL; waiting_key is the coalesce key
-- until the first hand-over; ends_at is expires_at, or the deadline of an accepted command.
CREATE TABLE commands (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    device_id BLOB NOT NULL,
    channel_id BLOB NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    guarantee TEXT NOT NULL,
    intent BLOB NOT NULL,
    job_id BLOB,
    waiting_key TEXT,
    state TEXT NOT NULL,
    pending_lane INTEGER,
    note TEXT,
    not_before BIGINT,
    expires_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    first_sent_at BIGINT,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id),
    FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id),
    FOREIGN KEY (site_id, channel_id) REFERENCES channels (site_id, id),
    FOREIGN KEY (site_id, job_id) REFERENCES jobs (site_id, id)
);
CREATE UNIQUE INDEX commands_seq ON commands (site_id, channel_id, seq);
CREATE UNIQUE INDEX commands_one_waiting ON commands (site_id, channel_id, waiting_key) WHERE waiting_key IS NOT NULL;
CREATE INDEX commands_pending ON commands (site_id, channel_id, pending_lane, seq) WHERE pending_lane IS NOT NULL;
CREATE INDEX commands_ending ON commands (ends_at) WHERE pending_lane IS NOT NULL;
CREATE INDEX commands_finished ON commands (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX commands_job ON commands (site_id, job_id) WHERE job_id IS NOT NULL;
CREATE INDEX commands_device ON commands (site_id, device_id, id);

-- 1..n parts of a command; the id is the wire's.
CREATE TABLE parts (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    command_id BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    wire BLOB,
    sends INTEGER NOT NULL,
    last_sent_at BIGINT,
    not_now INTEGER NOT NULL,
    not_before BIGINT,
    answer BLOB,
    error TEXT,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, command_id) REFERENCES commands (site_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX parts_ordinal ON parts (site_id, command_id, ordinal);

-- Hand-overs; one open per channel (Q6).
CREATE TABLE deliveries (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    channel_id BLOB NOT NULL,
    opened_at BIGINT NOT NULL,
    closed_at BIGINT,
    close_reason TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, channel_id) REFERENCES channels (site_id, id)
);
CREATE UNIQUE INDEX deliveries_one_open ON deliveries (site_id, channel_id) WHERE closed_at IS NULL;
CREATE INDEX deliveries_closed ON deliveries (closed_at) WHERE closed_at IS NOT NULL;

-- Which parts a delivery carried.
CREATE TABLE delivery_parts (
    site_id BLOB NOT NULL,
    delivery_id BLOB NOT NULL,
    part_id BLOB NOT NULL,
    answered_at BIGINT,
    PRIMARY KEY (site_id, delivery_id, part_id),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, delivery_id) REFERENCES deliveries (site_id, id) ON DELETE CASCADE,
    FOREIGN KEY (site_id, part_id) REFERENCES parts (site_id, id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX delivery_parts_part ON delivery_parts (site_id, part_id);

-- Who did what; position and chain are the sealer's.
CREATE TABLE audit (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    source TEXT,
    details_digest BLOB NOT NULL,
    details TEXT,
    position BIGINT,
    chain BLOB,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX audit_position ON audit (site_id, position);
CREATE INDEX audit_unsealed ON audit (site_id, id) WHERE position IS NULL;

-- Signed heads of the chain.
CREATE TABLE audit_checkpoints (
    site_id BLOB NOT NULL,
    position BIGINT NOT NULL,
    chain BLOB NOT NULL,
    at BIGINT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (site_id, position),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- The outbox.
CREATE TABLE events (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    position BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX events_position ON events (site_id, position);
CREATE INDEX events_unsealed ON events (site_id, id) WHERE position IS NULL;

-- Push certificates by topic.
CREATE TABLE push_certs (
    site_id BLOB NOT NULL,
    topic TEXT NOT NULL,
    certificate TEXT NOT NULL,
    key BLOB NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (site_id, topic),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- Server-wide; grants say where a key may act.
CREATE TABLE api_keys (
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash BLOB NOT NULL,
    grants TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    last_used_at BIGINT,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

-- Stored answers (Q2).
CREATE TABLE idempotency (
    key_hash BLOB NOT NULL,
    request_hash BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (key_hash)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Fixed windows of rate limits.
CREATE TABLE rates (
    bucket TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (bucket)
);

-- Which process does a background job.
CREATE TABLE leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (name)
);
